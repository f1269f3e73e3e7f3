"""Figure 6: three acceptance metrics on GSM8K, each over its own thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from mars.paper.evaluations import EvaluationKey, EvaluationRecord
from mars.paper.figures.style import BLACK, COLOURS, COLUMN, MARKERS, add_tip, figure_for
from mars.paper.figures.sweep import Point, as_csv, sweep_points, tip
from mars.paper.specs import Selection
from mars.provenance.files import write_atomic

METRICS = {
    "probability": "probability ≥ τ",
    "entropy": "entropy ≤ threshold",
    "margin": "top-2 margin ≥ threshold",
}


def draw(
    spec: Selection, records: Mapping[EvaluationKey, EvaluationRecord], output: Path
) -> list[Path]:
    """Write ``figure6.pdf``, ``.png``, ``.svg`` and the points drawn, ``.csv``, into ``output``.

    Arguments as of :func:`mars.paper.figures.sweep.sweep_points`.
    """
    points = sweep_points(spec, records)
    files = [Path(output) / f"figure6.{suffix}" for suffix in ("pdf", "png", "svg", "csv")]
    with figure_for(files[:3], COLUMN, 2.8) as figure:
        panel = figure.subplots()
        _draw_points(panel, points)
        panel.set(xlabel="tokens per forward", ylabel="GSM8K accuracy (%)")
        if points:
            figure.legend(loc="outside lower center", ncols=2)
    write_atomic(files[3], as_csv(points))
    return files


def _draw_points(panel: Axes, points: list[Point]) -> None:
    if not points:
        panel.text(0.5, 0.5, "not run", ha="center", va="center", transform=panel.transAxes)
    start = [point for point in points if point.threshold is None]
    for number, (metric, label) in enumerate(METRICS.items()):
        swept = [point for point in points if point.metric == metric and point not in start]
        if swept:
            _errorbar(panel, [*start, *swept], COLOURS[number], MARKERS[number], label)
            for point in swept:
                text = tip(label, point)
                add_tip(panel, point.tokens_per_forward, point.accuracy, text)
    if start:  # on top: it belongs to all three curves
        _errorbar(panel, start, BLACK, "*", "one token")
    for point in start:
        text = tip(f"B={point.block_size}", point)
        add_tip(panel, point.tokens_per_forward, point.accuracy, text)


def _errorbar(panel: Axes, curve: list[Point], colour: str, marker: str, label: str) -> None:
    panel.errorbar(
        [point.tokens_per_forward for point in curve],
        [point.accuracy for point in curve],
        xerr=[point.tokens_per_forward_stderr or 0 for point in curve],
        yerr=[point.accuracy_stderr or 0 for point in curve],
        color=colour,
        marker=marker,
        markersize=8 if marker == "*" else None,
        linestyle="none" if marker == "*" else "-",
        elinewidth=0.5,
        label=label,
    )
