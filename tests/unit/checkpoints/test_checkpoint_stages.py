"""Which checkpoints are imported, and by which stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.checkpoints.stage import IMPORT_BASE, IMPORT_RELEASED
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.training.stage import PRETRAIN, TRAIN

CONFIG = Path(__file__).resolve().parents[3] / "config"


def test_a_model_has_one_stage_that_makes_it():
    """Else an audit would take an old training for the maker of a released checkpoint."""
    overlay = CONFIG / "overlays/paper-released.yaml"
    for files in (["paper.yaml"], ["paper.yaml", overlay], ["tiny.yaml"], ["smollm2.yaml"]):
        experiment = load_experiment(*(CONFIG / file for file in files))
        for model in experiment.models:
            makers = []
            for stage in (PRETRAIN, TRAIN, IMPORT_BASE, IMPORT_RELEASED):
                try:
                    spec = stage.resolve(experiment, model=model)
                except UserError:
                    continue
                assert stage.spec.model_validate_json(spec.model_dump_json()) == spec
                makers.append(stage)
            (maker,) = makers
            assert (model in experiment.trained_models()) == (maker in (PRETRAIN, TRAIN))
            assert (model in experiment.released_models()) == (maker is IMPORT_RELEASED)


def test_the_wrong_stage_is_one_sentence():
    whole = load_experiment(CONFIG / "paper.yaml")
    with pytest.raises(UserError, match="there is no released checkpoint to import"):
        IMPORT_RELEASED.resolve(whole, model="mars-b4-7B")
    with pytest.raises(UserError, match="is not a ready base model"):
        IMPORT_BASE.resolve(load_experiment(CONFIG / "tiny.yaml"), model="base-small")
    assert IMPORT_BASE.inputs(whole, model="base-7B") == []
