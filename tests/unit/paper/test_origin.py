"""A reader of a table learns whose training a row is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.paper.artefacts import ARTEFACTS
from mars.paper.evaluations import Evaluations
from mars.paper.specs import TableSpec
from mars.paper.tables.files import write
from mars.paper.tables.notes import origin_notes, trains
from mars.paper.tables.stage import EVALUATED

CONFIG = Path(__file__).resolve().parents[3] / "config"
RELEASED = "Released by the authors, not trained here: "


def table_spec(number: int, *overlays: Path) -> TableSpec:
    experiment = load_experiment(CONFIG / "paper.yaml", *overlays)
    return ARTEFACTS[f"table{number}"].stage.resolve(experiment)


def test_nothing_is_said_where_all_is_trained():
    whole = table_spec(2)
    assert origin_notes(whole.models) == []
    assert trains(whole.models)


def test_all_released(tmp_path: Path):
    released = table_spec(2, CONFIG / "overlays/paper-released.yaml")
    assert not trains(released.models)
    (note,) = origin_notes(released.models)
    assert note.startswith(RELEASED)
    assert note.count("Xalphinions/") == 6
    assert note.endswith("Trained here: none.")
    write(EVALUATED["table2"].table(released, Evaluations(released, {})), tmp_path)
    for suffix in ("md", "tex"):
        text = (tmp_path / f"table2.{suffix}").read_text()
        assert RELEASED in text
        assert "Fine-tuned on" not in text


@pytest.mark.parametrize(
    ("number", "trained", "released"), [(3, "mars-b8-0.5B", 10), (2, "ar-sft-7B", 5)]
)
def test_released_and_trained_side_by_side(
    tmp_path: Path, number: int, trained: str, released: int
):
    (tmp_path / "mine.yaml").write_text(f"models: {{{trained}: {{source: train}}}}")
    mixed = table_spec(number, CONFIG / "overlays/paper-released.yaml", tmp_path / "mine.yaml")
    (note,) = origin_notes(mixed.models)
    assert f"Trained here: {trained}." in note
    assert note.count("Xalphinions/") == released
    assert trains(mixed.models)
