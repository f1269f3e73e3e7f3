"""Figure 3: accuracy over tokens per forward as tau falls, ours above the published curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mars.paper import published
from mars.paper.evaluations import Key
from mars.paper.figures.style import BLACK, COLOURS, MARKERS, PAGE, figure_for
from mars.paper.figures.sweep import Point, as_csv, sweep_points
from mars.provenance.files import write_atomic

CAPTION = (
    "Speed and quality: accuracy (%) over tokens per forward on GSM8K and HumanEval as tau falls "
    "from left to right. Solid: MARS; dashed: MARS without SFT loss; dotted: AR SFT. Upper row: "
    "this experiment, bars are one standard error; lower row: the paper (Table 8)."
)
SCALES, TITLES = ("0.5B", "7B"), ("GSM8K", "HumanEval")
SIZES = (4, 8, 16)  # the paper's block sizes; any other one shares a look
Curves = dict[tuple[int, bool, str], list[Point]]


def draw(
    spec: Mapping[str, Any], records: Mapping[Key, Mapping[str, Any]], output: Path
) -> list[Path]:
    """Write ``figure3.pdf``, ``.png`` and the points drawn, ``.csv``, into the folder ``output``.

    Arguments as of :func:`mars.paper.figures.sweep.sweep_points`.
    """
    ours = [p for p in sweep_points(spec, records) if p.metric == "probability"]
    files = [Path(output) / f"figure3.{suffix}" for suffix in ("pdf", "png", "csv")]
    rows = (("this experiment", ours), ("paper", published_points()))
    with figure_for(files[:2], PAGE, 4) as figure:
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
    write_atomic(files[2], as_csv(ours))
    return files


def _panels() -> list[tuple[str, str]]:
    return [(scale, title) for scale in SCALES for title in TITLES]


def published_points() -> list[Point]:
    """The paper's Table 8, and its AR SFT rows of Table 2, as points without standard errors."""
    swept = [
        _published(line, "mars", int(line["block_size"]), bool(line["sft_loss"]))
        for line in published.table(8).to_dict("records")
    ]
    autoregressive = [
        {"scale": row.scale, "benchmark": title, "accuracy": row.scores["accuracy"][title]}
        for row in published.table2()
        if row.method == "ar_sft" and row.epochs == published.STAGE_EPOCHS
        for title in TITLES
    ]
    return swept + [_published(line, "ar_sft", None, None) for line in autoregressive]


def _published(
    line: Mapping[str, Any], method: str, block_size: int | None, sft_loss: bool | None
) -> Point:
    tau = line.get("tau", 1.0)
    return Point(
        scale=line["scale"],
        benchmark=line["benchmark"],
        model="paper",
        method=method,
        block_size=block_size,
        sft_loss=sft_loss,
        setting="paper",
        metric="probability",
        threshold=None if tau == 1.0 else tau,
        accuracy=line["accuracy"],
        accuracy_stderr=None,
        tokens_per_forward=line.get("tokens_per_forward", 1.0),
        tokens_per_forward_stderr=None,
        n=0,
    )


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
    for (block_size, sft_loss, _), curve in curves(points).items():
        panel.errorbar(
            [point.tokens_per_forward for point in curve],
            [point.accuracy for point in curve],
            xerr=[point.tokens_per_forward_stderr or 0 for point in curve],
            yerr=[point.accuracy_stderr or 0 for point in curve],
            elinewidth=0.5,
            **look(block_size, sft_loss),
        )


def _keys(points: list[Point]) -> list[Line2D]:
    """One entry of the legend per curve that is somewhere in the figure."""
    keys = [
        Line2D([], [], label=f"B={size}" + ("" if sft else ", no SFT loss"), **look(size, sft))
        for size, sft in dict.fromkeys((size, sft) for size, sft, _ in curves(points))
    ]
    return [*keys, Line2D([], [], color=BLACK, linestyle=":", label="AR SFT")]
