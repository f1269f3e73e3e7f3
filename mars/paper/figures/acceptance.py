"""Figure 6: three acceptance metrics on GSM8K, each over its own thresholds."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from mars.paper.evaluations import Evaluations
from mars.paper.figures import sweep
from mars.paper.figures.style import BLACK, COLOURS, COLUMN, MARKERS, figure_for
from mars.paper.figures.sweep import Point

METRICS = {
    "probability": "probability ≥ τ",
    "entropy": "entropy ≤ threshold",
    "margin": "top-2 margin ≥ threshold",
}


def draw(evaluations: Evaluations, output: Path) -> list[Path]:
    """Write ``figure6.pdf``, ``.png``, ``.svg`` and the points drawn, ``.csv``, into ``output``."""
    points = sweep.sweep_points(evaluations)
    files = [output / f"figure6.{suffix}" for suffix in ("pdf", "png", "svg")]
    with figure_for(files, COLUMN, 2.8) as figure:
        panel = figure.subplots()
        _draw_points(panel, points)
        panel.set(xlabel="tokens per forward", ylabel="GSM8K accuracy (%)")
        if points:
            figure.legend(loc="outside lower center", ncols=2)
    return [*files, sweep.write_points(points, output / "figure6.csv")]


def _draw_points(panel: Axes, points: list[Point]) -> None:
    if not points:
        sweep.say_not_run(panel)
    start = [point for point in points if point.threshold is None]
    for number, (metric, label) in enumerate(METRICS.items()):
        swept = [point for point in points if point.metric == metric and point not in start]
        if swept:
            look = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "-"}
            sweep.draw_curve(panel, [*start, *swept], label=label, **look)
            sweep.add_tips(panel, swept, label)
    if start:  # on top: it belongs to all three curves
        look = {"color": BLACK, "marker": "*", "linestyle": "none"}
        sweep.draw_curve(panel, start, label="one token", markersize=8, **look)
    for point in start:
        sweep.add_tips(panel, [point], f"B={point.block_size}")
