"""A model trained from several seeds is several models, told apart by the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mars.config.experiment import Experiment, parse_experiment, read_experiment
from mars.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def parsed(experiment: str = "ci", models: dict[str, Any] | None = None, **changes: Any):
    content = read_experiment(ROOT / f"config/{experiment}.yaml")
    for name, keys in (models or {}).items():
        content["models"][name] = {**content["models"].get(name, {}), **keys}
    return parse_experiment({**content, **changes}, "here")


def specs(experiment: Experiment, name: str) -> dict[str, Any]:
    from mars.training.stage import PRETRAIN, TRAIN

    stage = PRETRAIN if experiment.models[name].method == "base" else TRAIN
    return stage.planned(experiment, {"model": name}).config


def test_one_seed_is_the_experiment_as_it_was():
    plain, one = parsed(), parsed(seeds=[0])
    assert one.models.keys() == plain.models.keys()
    assert all(specs(one, name) == specs(plain, name) for name in plain.trained_models())
    assert one.evaluate == plain.evaluate


def test_seeds_differ_in_the_seed_and_in_the_parent_of_the_same_seed():
    experiment = parsed(seeds=[3, 1, 2])
    plain = parsed()
    assert list(experiment.models)[:3] == ["base-small", "base-small-seed1", "base-small-seed2"]
    for name in plain.models:
        first = specs(experiment, name)
        assert first["training"]["seed"] == 3
        for seed in (1, 2):
            other = experiment.models[f"{name}-seed{seed}"]
            assert other.seed_of == name
            parent = experiment.models[name].parent
            assert other.parent == (None if parent is None else f"{parent}-seed{seed}")
            training = {**first["training"], "seed": seed}
            assert specs(experiment, f"{name}-seed{seed}") == {**first, "training": training}


def test_every_seed_is_evaluated_and_the_first_one_timed():
    experiment = parsed(seeds=[0, 1])
    plain = parsed()
    for name in plain.evaluated_models():
        assert experiment.evaluations_of(f"{name}-seed1") == plain.evaluations_of(name)
    assert experiment.speed == plain.speed


def test_a_model_may_have_seeds_of_its_own():
    experiment = parsed(models={"base-small": {"seeds": [0]}}, seeds=[0, 7])
    assert "base-small-seed7" not in experiment.models
    assert experiment.models["ar-small-seed7"].parent == "base-small"
    assert experiment.models["mars-b4-small-seed7"].parent == "ar-small-seed7"
    alone = parsed(models={"mars-b4-small": {"seeds": [0, 1]}})
    assert alone.models["mars-b4-small-seed1"].parent == "ar-small"
    assert len(alone.models) == len(parsed().models) + 1


def test_ready_checkpoints_have_no_seeds():
    experiment = parsed("paper", seeds=[0, 1])
    assert "base-7B-seed1" not in experiment.models
    assert experiment.models["ar-sft-7B-seed1"].parent == "base-7B"


@pytest.mark.parametrize(
    ("models", "changes", "sentence"),
    [
        ({}, {"seeds": [0, 0]}, "list each seed once"),
        ({}, {"seeds": []}, "list each seed once"),
        ({"mars-b4-small": {"seeds": []}}, {}, "list each seed once"),
        ({}, {"seeds": 3}, "`seeds` is 3"),
        ({}, {"seeds": [-1]}, "seed"),
        (
            {"ar-small-seed1": {"scale": "small", "method": "ar_sft", "parent": "base-small"}},
            {"seeds": [0, 1]},
            "a name that another model has",
        ),
    ],
)
def test_mistakes_are_a_sentence(models, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        parsed(models=models, **changes)


def test_seeds_of_what_is_not_trained_here():
    with pytest.raises(UserError, match="not trained here"):
        parsed("paper", models={"base-7B": {"seeds": [0, 1]}})
