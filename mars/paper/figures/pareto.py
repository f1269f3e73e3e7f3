"""Figure 3: accuracy over tokens per forward as tau falls, ours above the published curves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mars.paper import published
from mars.paper.evaluations import Evaluations
from mars.paper.figures import sweep
from mars.paper.figures.style import BLACK, COLOURS, MARKERS, PAGE, figure_for, unseen
from mars.paper.figures.sweep import Point
from mars.paper.published import SCALES, STAGE_EPOCHS

TITLES = ("GSM8K", "HumanEval")
AR = "AR SFT"
SIZES = (4, 8, 16)  # the paper's block sizes; any other one shares a look
Curves = dict[tuple[int, bool, str], list[Point]]


def draw(evaluations: Evaluations, output: Path) -> list[Path]:
    """Write ``figure3.pdf``, ``.png``, ``.svg`` and the points drawn, ``.csv``, into ``output``."""
    ours = [p for p in sweep.sweep_points(evaluations) if p.metric == "probability"]
    files = [output / f"figure3.{suffix}" for suffix in ("pdf", "png", "svg")]
    rows = (("this experiment", ours), ("paper", published_points()))
    with figure_for(files, PAGE, 4) as figure:
        panels = figure.subplots(2, 4, squeeze=False)
        for line, (source, points) in zip(panels, rows, strict=True):
            for panel, (scale, title) in zip(line, product(SCALES, TITLES), strict=True):
                here = [p for p in points if (p.scale, p.benchmark) == (scale, title)]
                _panel(panel, here)
                panel.set_title(f"{scale}, {title}")
            line[0].set_ylabel(f"{source}\naccuracy (%)")
        for panel in panels[-1]:
            panel.set_xlabel("tokens per forward")
        figure.legend(handles=_keys([*ours, *rows[1][1]]), loc="outside lower center", ncols=4)
    return [*files, sweep.write_points(ours, output / "figure3.csv")]


def published_points() -> list[Point]:
    """The paper's Table 8, and its AR SFT rows of Table 2, as points without standard errors."""
    swept = [(row, title) for row in published.table8() for title in row.benchmarks]
    ar = [row for row in published.table2() if (row.method, row.epochs) == ("ar_sft", STAGE_EPOCHS)]
    return [
        Point(
            scale=row.scale,
            benchmark=title,
            method=row.method,
            block_size=row.block_size,
            sft_loss=row.sft_loss,
            threshold=row.decoding.get("threshold"),
            accuracy=row.scores["accuracy"][title],
            tokens_per_forward=row.scores.get("tokens_per_forward", {}).get(title, 1.0),
            model="paper",
            setting="paper",
        )
        for row, title in (*swept, *product(ar, TITLES))
    ]


def curves(points: Iterable[Point]) -> Curves:
    """The points of MARS models by block size, SFT loss and name, in the order given."""
    found: Curves = {}
    for point in points:
        if point.block_size is not None:
            key = (point.block_size, bool(point.sft_loss), point.model)
            found.setdefault(key, []).append(point)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], not item[0][1])))


def look(block_size: int, sft_loss: bool) -> dict[str, Any]:
    """Colour and marker of a block size; line and filling tell whether there was an SFT loss."""
    number = SIZES.index(block_size) if block_size in SIZES else len(SIZES)
    return {
        "color": COLOURS[number],
        "marker": MARKERS[number],
        "linestyle": "-" if sft_loss else (0, (4, 2)),
        "markerfacecolor": COLOURS[number] if sft_loss else "white",
    }


def _panel(panel: Axes, points: list[Point]) -> None:
    if not points:
        sweep.say_not_run(panel)
        panel.set(xticks=[], yticks=[])
        return
    for point in points:
        if point.method == "ar_sft" and point.threshold is None:
            panel.axhline(point.accuracy, color=BLACK, linestyle=":", linewidth=1)
            panel.axhline(point.accuracy, color=BLACK, linewidth=8, **unseen(sweep.tip(AR, point)))
    for (block_size, sft_loss, _), curve in curves(points).items():
        sweep.draw_curve(panel, curve, **look(block_size, sft_loss))
        sweep.add_tips(panel, curve, _label(block_size, sft_loss))


def _label(block_size: int, sft_loss: bool) -> str:
    return f"B={block_size}" + ("" if sft_loss else ", no SFT loss")


def _keys(points: list[Point]) -> list[Line2D]:
    """One entry of the legend per curve that is somewhere in the figure."""
    keys = [
        Line2D([], [], label=_label(size, sft), **look(size, sft))
        for size, sft in dict.fromkeys((size, sft) for size, sft, _ in curves(points))
    ]
    return [*keys, Line2D([], [], color=BLACK, linestyle=":", label=AR)]
