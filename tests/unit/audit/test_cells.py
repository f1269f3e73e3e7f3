"""A cell is derived again from the evaluations of every seed of its model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mars.audit.cells import CellLine, Tables
from mars.config.experiment import parse_experiment, read_experiment

CI = Path(__file__).resolve().parents[3] / "config/ci.yaml"
FOLDER = Path("results/ci/evaluations")
SCORES = {
    **{("mars-b4-small", "tau-0.95"): 0.5, ("mars-b4-small-seed1", "tau-0.95"): 0.7},
    **{("mars-b4-small", "one-token"): 0.6, ("mars-b4-small-seed1", "one-token"): 0.9},
    **{("ar-small", "one-token"): 0.2, ("ar-small-seed1", "one-token"): 0.4},
    ("base-small", "one-token"): 0.1,
}


@pytest.fixture
def tables() -> Tables:
    """Tables of an experiment with two seeds, as far as deriving a cell needs them."""
    content = read_experiment(CI) | {"seeds": [0, 1]}
    content["models"]["base-small"]["seeds"] = [0]
    made = object.__new__(Tables)
    made.records = SimpleNamespace(experiment=parse_experiment(content, "ci"))
    made._keys, made._folder = {"GSM8K": "gsm8k"}, FOLDER
    spec = {"benchmark": {"metric": "exact_match", "filter": "none"}}
    made._read = {
        str(FOLDER / model / setting / "gsm8k.json"): {
            "cell_spec": spec,
            "metrics": {"exact_match": {"none": {"value": score}}},
            "tokens_per_forward": {"value": 1 + score},
            **{"tokens": 100, "overrun": 100 * score, "forwards": 50},
        }
        for (model, setting), score in SCORES.items()
    }
    return made


def cell(model: str, setting: str, quantity: str, against: str = "") -> CellLine:
    named = ("table4.csv", "table4", "0.5B", "a row", model, setting, "GSM8K", quantity)
    return CellLine(*named, "0", "0", "6", against)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("accuracy", 60.0),
        ("tokens_per_forward", 1.6),
        ("tokens_per_forward_as_counted", 3.2),
        ("delta_from_tau_1", -15.0),
    ],
)
def test_the_mean_over_seeds(tables: Tables, quantity: str, value: float):
    found, files = tables._derive(cell("mars-b4-small", "tau-0.95", quantity))
    assert found == pytest.approx(value)
    assert {Path(file).parts[3] for file in files} == {"mars-b4-small", "mars-b4-small-seed1"}


def test_a_difference_is_between_the_same_seeds(tables: Tables):
    difference = cell("mars-b4-small", "tau-0.95", "accuracy_difference", "ar-small/one-token")
    assert tables._derive(difference)[0] == pytest.approx(100 * ((0.5 - 0.2) + (0.7 - 0.4)) / 2)
    one = cell("mars-b4-small", "tau-0.95", "accuracy_difference", "base-small/one-token")
    assert tables._derive(one)[0] == pytest.approx(100 * ((0.5 - 0.1) + (0.7 - 0.1)) / 2)


def test_a_seed_without_evaluation_leaves_the_number_open(tables: Tables):
    del tables._read[str(FOLDER / "mars-b4-small-seed1/tau-0.95/gsm8k.json")]
    assert tables._derive(cell("mars-b4-small", "tau-0.95", "accuracy"))[0] is None


def test_a_model_of_one_seed_is_its_own_record(tables: Tables):
    found, files = tables._derive(cell("base-small", "one-token", "accuracy"))
    assert found == pytest.approx(10.0)
    assert files == [str(FOLDER / "base-small/one-token/gsm8k.json")]


def test_who_answered_is_said_where_it_was_a_server(tables: Tables):
    here, there = (str(FOLDER / f"{name}-small/one-token/gsm8k.json") for name in ("base", "ar"))
    tables._read[here]["documents"] = tables._read[there]["documents"] = 6
    tables._read[there]["endpoint"] = {
        "model": "theirs",
        "answers_by_server": {"http://node7/v1": 6},
    }
    assert tables.describe(here).endswith("50 forwards")
    told = "answered by theirs at http://node7/v1, whose weights were not checked"
    assert tables.describe(there).endswith(told)
    assert list(tables.endpoints()) == [there]
