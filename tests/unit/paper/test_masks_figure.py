"""The figure of what masks predict: means over windows, errors over questions."""

import pandas as pd
import pytest

from mars.config.experiment import load_experiment
from mars.paper.figures import masks
from mars.paper.figures import stage as figures
from mars.paper.figures.masks import Probed


def rows(*cells):
    """(question, place, windows, right, confidence)"""
    names = ("question", "place", "windows", "right", "confidence")
    return [dict(zip(names, cell, strict=True)) for cell in cells]


SHORT = Probed("a", 4, 100, rows((0, 1, 10, 1, 0.8), (1, 1, 30, 1, 0.4), (0, 2, 9, 0, 0.1)))
LONG = Probed("b", 4, 200, rows((0, 1, 10, 1, 0.9), (1, 1, 30, 1, 0.9), (0, 2, 9, 1, 0.6)))
AGAIN = LONG._replace(model="b-seed1", rows=rows((0, 1, 20, 0.5, 0.7), (1, 1, 20, 0.9, 0.5)))
WIDE = Probed("c", 8, 200, rows((0, 1, 10, 1, 0.5), (1, 1, 10, 1, 0.7)))


def test_every_window_counts_the_same():
    first, second = masks.points([SHORT])
    assert (first.place, first.windows, first.trainings) == (1, 40, 1)
    assert first.right.value == 1
    assert first.confidence.value == pytest.approx((10 * 0.8 + 30 * 0.4) / 40)
    assert first.confidence.stderr > 0
    # Question 1 has no answer long enough for the second place.
    assert (second.place, second.windows, second.right.value) == (2, 9, 0)


def test_trainings_of_one_kind_count_the_same():
    first, _ = masks.points([LONG, AGAIN])
    assert first.trainings == 2
    assert first.right.value == pytest.approx((1 + (0.5 + 0.9) / 2) / 2)


def test_one_panel_for_each_block_size_and_one_line_for_each_length(tmp_path):
    files = masks.draw([WIDE, LONG, SHORT], tmp_path)
    assert all(file.stat().st_size > 0 for file in files)
    table = pd.read_csv(tmp_path / "masks.csv")
    assert list(zip(table.block_size, table.steps, table.place, strict=True)) == [
        *((4, 100, 1), (4, 100, 2), (4, 200, 1), (4, 200, 2), (8, 200, 1)),
    ]


def test_the_figure_takes_every_seed_of_what_is_probed(tmp_path):
    mine = tmp_path / "seeds.yaml"
    mine.write_text("models:\n  mars-b4-small: {seeds: [0, 1]}\n")
    experiment = load_experiment("config/ci.yaml", mine)
    spec = figures.masks(experiment)
    assert list(spec.block_sizes) == [
        "mars-b4-small", "mars-b4-small-seed1", "mars-b8-no-sft-small",
    ]  # fmt: skip
    assert "provenance/train/mars-b4-small-seed1.json" in figures.masks_inputs(experiment)
