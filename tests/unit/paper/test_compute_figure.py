"""MARS against longer AR SFT: each model where its accuracy and its tokens put it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mars.config.experiment import parse_experiment, read_experiment
from mars.paper.evaluations import Evaluations, ModelAndSetting
from mars.paper.figures import compute
from mars.paper.figures import stage as figures
from mars.paper.published import AVERAGE
from tests.support import synthetic_evaluations as synthetic

MINI = Path(__file__).resolve().parents[3] / "config/mini.yaml"
TOKENS = {"m2": 1e6, "m3": 2e6, "m4": 3e6, "m4-seed1": 3e6, "m7": 3e6, "m6": 5e6}


@pytest.fixture(scope="module")
def evaluated() -> Evaluations:
    """AR SFT, the same with twice the epochs, MARS with two block sizes, one of two seeds."""
    spec = synthetic.experiment(("GSM8K", "HumanEval"))
    models = {name: spec.models[name] for name in TOKENS if name in spec.models}
    models["m4-seed1"] = models["m4"].model_copy(update={"seed_of": "m4"})
    spec = spec.model_copy(update={"models": models})
    return Evaluations(spec, *synthetic.evaluations(spec, seed=1, n=40))


def test_every_model_is_where_its_numbers_say(evaluated: Evaluations, tmp_path: Path):
    files = compute.draw(evaluated, TOKENS, tmp_path)
    assert {file.suffix for file in files} == {".pdf", ".png", ".svg", ".csv"}
    table = pd.read_csv(tmp_path / "compute.csv").set_index("model")
    assert set(table.index) == TOKENS.keys() - {"m4-seed1"}, "seeds are one model"
    for name, line in table.iterrows():
        cell = evaluated.measure("accuracy", ModelAndSetting(str(name), "plain"), [AVERAGE])
        assert line["accuracy"] == cell[AVERAGE].value
        assert line["stderr"] == cell[AVERAGE].stderr
        assert line["tokens"] == TOKENS[str(name)]
    assert table.loc["m4", "seeds"].count(";") == 1
    assert pd.isna(table.loc["m7", "seeds"])
    assert list(table.loc[["m2", "m3", "m7"], "label"]) == [
        *("AR SFT", "AR SFT (10 ep)", "MARS (B=16)")
    ]


def test_a_figure_without_any_record_says_not_run(evaluated: Evaluations, tmp_path: Path):
    compute.draw(Evaluations(evaluated.spec, {}), {}, tmp_path)
    assert pd.read_csv(tmp_path / "compute.csv").empty


def test_the_tokens_are_those_of_the_whole_chain():
    content = read_experiment(MINI)
    experiment = parse_experiment(content, "mini")
    spec = figures.compute(experiment)
    assert {model.method for model in spec.models.values()} == {"ar_sft", "mars"}
    assert all(model.ar_weight > 0 for model in spec.models.values())
    assert figures._fine_tunings("mars-b8-small-seed2", spec.parents) == [
        *("mars-b8-small-seed2", "ar-small-seed2")
    ]
    inputs = figures.compute_inputs(experiment)
    assert "provenance/train/ar-small-seed2.json" in inputs
    assert "evaluations/mars-b16-large/manifest.json" in inputs
    assert not any("base" in file for file in inputs)
