"""How sure and how right each place of the decoding window is, by block size and training steps.

Why larger blocks need more training: the paper fine-tunes every block size for the same number of
steps, and does not show what the masks further on have learnt by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes

from mars.evaluation.scores import Score, mean_ratio
from mars.paper.figures.style import MARKERS, PAGE, figure_for
from mars.paper.tables.tidy_csv import csv_text
from mars.provenance.files import write_atomic

Rows = Sequence[Mapping[str, Any]]
"""Lines of ``places.jsonl``: a question and a place of the window each."""

SURE = 1.96  # standard errors to either side: 95 %
QUANTITIES = {"right": "right (%)", "confidence": "confidence (%)"}
LIGHTEST = 0.9  # of the colour map, for the shortest training; all of it would end in pale yellow


class Probed(NamedTuple):
    """One model: its block size, the steps of its training by MARS, and what was found."""

    model: str
    block_size: int
    steps: int
    rows: Rows


class Point(NamedTuple):
    """One place of the windows of the trainings of one kind, in 0..1."""

    block_size: int
    steps: int
    trainings: int
    place: int
    windows: int
    right: Score
    confidence: Score


def draw(probed: Sequence[Probed], output: Path) -> list[Path]:
    """Write ``masks.pdf``, ``.png`` and the points, ``.csv``, into ``output``."""
    found = points(probed)
    sizes = sorted({point.block_size for point in found})
    looks = _looks(sorted({point.steps for point in found}))
    files = [output / f"masks.{suffix}" for suffix in ("pdf", "png")]
    with figure_for(files, PAGE, 3.6) as figure:
        panels = figure.subplots(2, len(sizes), squeeze=False, sharey=True, sharex="col")
        for column, size in enumerate(sizes):
            for row, quantity in enumerate(QUANTITIES):
                _panel(panels[row][column], found, size, quantity, looks)
            panels[0][column].set_title(f"B = {size}")
            panels[1][column].set_xlabel("place in the window")
        for row, label in enumerate(QUANTITIES.values()):
            panels[row][0].set_ylabel(label)
        handles = {
            label: handle
            for panel in panels[0]
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        in_order = {label: handles[label] for label in map(_label, looks)}
        figure.legend(in_order.values(), in_order, loc="outside lower center", ncols=len(looks))
    write_atomic(output / "masks.csv", _csv(found))
    return [*files, output / "masks.csv"]


def points(probed: Sequence[Probed]) -> list[Point]:
    """The places of the windows; trainings of one block size and length are put together.

    Windows along one answer depend on each other, so the question is the unit of the errors.
    """
    kinds: dict[tuple[int, int], list[Rows]] = {}
    for one in sorted(probed, key=lambda one: (one.block_size, one.steps)):
        kinds.setdefault((one.block_size, one.steps), []).append(one.rows)
    return [
        _point(size, steps, runs, place)
        for (size, steps), runs in kinds.items()
        for place in sorted({row["place"] for rows in runs for row in rows})
    ]


def _point(size: int, steps: int, runs: Sequence[Rows], place: int) -> Point:
    by_question = [{r["question"]: r for r in rows if r["place"] == place} for rows in runs]
    here = [rows for rows in by_question if rows]
    questions = sorted(set().union(*here))
    none = {"windows": 0, "right": 0.0, "confidence": 0.0}  # an answer too short for this place
    asked = [[rows.get(question, none) for question in questions] for rows in here]
    windows = [[row["windows"] for row in rows] for rows in asked]
    scores = [
        mean_ratio([[row["windows"] * row[key] for row in rows] for rows in asked], windows)
        for key in QUANTITIES
    ]
    return Point(size, steps, len(here), place, sum(map(sum, windows)), *scores)


def _looks(steps: Sequence[int]) -> dict[int, dict[str, Any]]:
    """By steps, the longer the darker."""
    last = len(steps) - 1
    return {
        count: {
            "color": colormaps["viridis"](LIGHTEST * (last - number) / max(last, 1)),
            "marker": MARKERS[number % len(MARKERS)],
        }
        for number, count in enumerate(steps)
    }


def _panel(
    panel: Axes,
    found: Sequence[Point],
    size: int,
    quantity: str,
    looks: Mapping[int, Mapping[str, Any]],
) -> None:
    for steps, look in looks.items():
        line = [point for point in found if (point.block_size, point.steps) == (size, steps)]
        if not line:
            continue
        scores: list[Score] = [getattr(point, quantity) for point in line]
        panel.errorbar(
            [point.place for point in line],
            [100 * score.value for score in scores],
            yerr=[100 * SURE * (score.stderr or 0) for score in scores],
            label=_label(steps),
            elinewidth=0.6,
            **look,
        )
    panel.set_xticks([place for place in range(1, size + 1) if size <= 8 or place % 3 == 1])
    panel.set_ylim(0, 105)


def _label(steps: int) -> str:
    return f"{steps:,} steps"


def _csv(found: Sequence[Point]) -> str:
    columns = ["block_size", "steps", "trainings", "place", "windows"]
    columns += [f"{key}{suffix}" for key in QUANTITIES for suffix in ("", "_stderr")]
    return csv_text(columns, ([*point[:5], *point.right, *point.confidence] for point in found))
