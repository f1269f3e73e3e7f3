"""Figure 3: accuracy over tokens per forward as tau falls, ours above the published curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mars.paper import published
from mars.paper.evaluations import EvaluationKey, EvaluationRecord
from mars.paper.figures.style import BLACK, COLOURS, MARKERS, PAGE, add_tip, figure_for, unseen
from mars.paper.figures.sweep import Point, as_csv, sweep_points, tip
from mars.paper.specs import Selection
from mars.provenance.files import write_atomic

SCALES, TITLES = ("0.5B", "7B"), ("GSM8K", "HumanEval")
AR = "AR SFT"
SIZES = (4, 8, 16)  # the paper's block sizes; any other one shares a look
Curves = dict[tuple[int, bool, str], list[Point]]


def draw(
    spec: Selection, records: Mapping[EvaluationKey, EvaluationRecord], output: Path
) -> list[Path]:
    """Write ``figure3.pdf``, ``.png``, ``.svg`` and the points drawn, ``.csv``, into ``output``.

    Arguments as of :func:`mars.paper.figures.sweep.sweep_points`.
    """
    ours = [p for p in sweep_points(spec, records) if p.metric == "probability"]
    files = [Path(output) / f"figure3.{suffix}" for suffix in ("pdf", "png", "svg", "csv")]
    rows = (("this experiment", ours), ("paper", published_points()))
    with figure_for(files[:3], PAGE, 4) as figure:
        panels = figure.subplots(2, 4, squeeze=False)
        for line, (source, points) in zip(panels, rows, strict=True):
            for panel, (scale, title) in zip(line, _panels(), strict=True):
                here = [p for p in points if (p.scale, p.benchmark) == (scale, title)]
                _panel(panel, here)
                panel.set_title(f"{scale}, {title}")
            line[0].set_ylabel(f"{source}\naccuracy (%)")
        for panel in panels[-1]:
            panel.set_xlabel("tokens per forward")
        figure.legend(handles=_keys([*ours, *rows[1][1]]), loc="outside lower center", ncols=4)
    write_atomic(files[3], as_csv(ours))
    return files


def _panels() -> list[tuple[str, str]]:
    return [(scale, title) for scale in SCALES for title in TITLES]


def published_points() -> list[Point]:
    """The paper's Table 8, and its AR SFT rows of Table 2, as points without standard errors."""
    swept = [
        Point(
            scale=line["scale"],
            benchmark=line["benchmark"],
            method="mars",
            block_size=int(line["block_size"]),
            sft_loss=line["sft_loss"] == "true",
            threshold=None if float(line["tau"]) == 1 else float(line["tau"]),
            accuracy=float(line["accuracy"]),
            tokens_per_forward=float(line["tokens_per_forward"]),
            model="paper",
            setting="paper",
        )
        for line in published.table(8)
    ]
    autoregressive = [
        Point(
            scale=row.scale,
            benchmark=title,
            method="ar_sft",
            accuracy=row.scores["accuracy"][title],
            model="paper",
            setting="paper",
        )
        for row in published.table2()
        if row.method == "ar_sft" and row.epochs == published.STAGE_EPOCHS
        for title in TITLES
    ]
    return swept + autoregressive


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
        panel.text(0.5, 0.5, "not run", ha="center", va="center", transform=panel.transAxes)
        panel.set(xticks=[], yticks=[])
        return
    for point in points:
        if point.method == "ar_sft" and point.threshold is None:
            panel.axhline(point.accuracy, color=BLACK, linestyle=":", linewidth=1)
            panel.axhline(point.accuracy, color=BLACK, linewidth=8, **unseen(tip(AR, point)))
    for (block_size, sft_loss, _), curve in curves(points).items():
        panel.errorbar(
            [point.tokens_per_forward for point in curve],
            [point.accuracy for point in curve],
            xerr=[point.tokens_per_forward_stderr or 0 for point in curve],
            yerr=[point.accuracy_stderr or 0 for point in curve],
            elinewidth=0.5,
            **look(block_size, sft_loss),
        )
        for point in curve:
            text = tip(_label(block_size, sft_loss), point)
            add_tip(panel, point.tokens_per_forward, point.accuracy, text)


def _label(block_size: int, sft_loss: bool) -> str:
    return f"B={block_size}" + ("" if sft_loss else ", no SFT loss")


def _keys(points: list[Point]) -> list[Line2D]:
    """One entry of the legend per curve that is somewhere in the figure."""
    keys = [
        Line2D([], [], label=_label(size, sft), **look(size, sft))
        for size, sft in dict.fromkeys((size, sft) for size, sft, _ in curves(points))
    ]
    return [*keys, Line2D([], [], color=BLACK, linestyle=":", label=AR)]
