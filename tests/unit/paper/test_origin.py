"""A reader of a table learns whose training a row is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.paper.tables.evaluated import write_table
from mars.paper.tables.origin import origin_notes, trains
from mars.stages import spec

CONFIG = Path(__file__).resolve().parents[3] / "config"
RELEASED = "Released by the authors, not trained here: "


def table_spec(number: int, *overlays: Path) -> dict:
    experiment = load_experiment(CONFIG / "paper.yaml", *overlays)
    return json.loads(spec(experiment, "table", number=number))["config"]


def test_nothing_is_said_where_all_is_trained():
    whole = table_spec(2)
    assert origin_notes(whole) == []
    assert trains(whole)


def test_all_released(tmp_path: Path):
    released = table_spec(2, CONFIG / "overlays/paper-released.yaml")
    assert not trains(released)
    (note,) = origin_notes(released)
    assert note.startswith(RELEASED)
    assert note.count("Xalphinions/") == 6
    assert note.endswith("Trained here: none.")
    write_table(2, experiment_spec=released, records={}, output=tmp_path)
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
    (note,) = origin_notes(mixed)
    assert f"Trained here: {trained}." in note
    assert note.count("Xalphinions/") == released
    assert trains(mixed)
