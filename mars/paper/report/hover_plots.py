"""Figures 3 and 6 for the page: small SVG plots whose points tell their numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from mars.paper.figures import acceptance, pareto
from mars.paper.figures.style import COLOURS
from mars.paper.figures.sweep import Point

WIDTH, HEIGHT = 300, 230
NUMBERS = (
    *("threshold", "accuracy", "accuracy_stderr"),
    *("tokens_per_forward", "tokens_per_forward_stderr"),
)
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 24, 36


@dataclass(frozen=True)
class Curve:
    """Points joined in their order; ``level``: a horizontal line at the only point's accuracy."""

    label: str
    colour: str
    points: Sequence[Point]
    dashed: bool = False
    level: bool = False


def read_points(path: Path) -> list[Point]:
    """The points of a figure's CSV."""
    with open(path, newline="") as stream:
        return [_point(row) for row in csv.DictReader(stream)]


def _point(row: dict[str, str]) -> Point:
    values: dict[str, Any] = dict(row)
    values |= {key: float(row[key]) if row[key] else None for key in NUMBERS}
    values["block_size"] = int(row["block_size"]) if row["block_size"] else None
    values["sft_loss"] = {"True": True, "False": False}.get(row["sft_loss"])
    values["n"] = int(row["n"])
    return Point(**values)


def pareto_plots(path: Path) -> Markup:
    """Figure 3: a row of panels for this experiment, one for the paper."""
    rows = (("This experiment", read_points(path)), ("Paper", pareto.published_points()))
    parts = []
    for source, points in rows:
        panels = []
        for scale in pareto.SCALES:
            for title in pareto.TITLES:
                here = [p for p in points if (p.scale, p.benchmark) == (scale, title)]
                panels.append(_panel(f"{scale}, {title}", _pareto_curves(here), source))
        parts.append(
            Markup('<h4>{}</h4><div class="panels">{}</div>').format(
                source, Markup("").join(panels)
            )
        )
    return Markup("").join([*parts, _legend(_pareto_curves([*rows[0][1], *rows[1][1]]))])


def _pareto_curves(points: Iterable[Point]) -> list[Curve]:
    points = list(points)
    curves = [
        Curve(
            label=f"B={size}" + ("" if sft_loss else ", no SFT loss"),
            colour=pareto.look(size, sft_loss)["color"],
            points=curve,
            dashed=not sft_loss,
        )
        for (size, sft_loss, _), curve in pareto.curves(points).items()
    ]
    autoregressive = [p for p in points if p.method == "ar_sft" and p.threshold is None]
    return curves + [
        Curve("AR SFT", "currentColor", [p], dashed=True, level=True) for p in autoregressive
    ]


def acceptance_plots(path: Path) -> Markup:
    """Figure 6: one panel."""
    points = read_points(path)
    start = [point for point in points if point.threshold is None]
    curves = [
        Curve(label, COLOURS[number], [*start, *swept])
        for number, (metric, label) in enumerate(acceptance.METRICS.items())
        if (swept := [p for p in points if p.metric == metric and p.threshold is not None])
    ]
    panel = _panel("GSM8K", curves, "This experiment")
    return Markup('<div class="panels single">{}</div>{}').format(panel, _legend(curves))


def _legend(curves: Iterable[Curve]) -> Markup:
    looks = {curve.label: curve for curve in curves}
    line = Markup(
        '<li><svg width="28" height="10" aria-hidden="true"><line x1="0" x2="28" y1="5" y2="5"'
        ' stroke="{}"{}/></svg> {}</li>'
    )
    items = [line.format(c.colour, _dashes(c), label) for label, c in looks.items()]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _dashes(curve: Curve) -> Markup:
    if not curve.dashed:
        return Markup("")
    return Markup(' stroke-dasharray="{}"').format("1.5 3" if curve.level else "5 3")


def _panel(title: str, curves: Sequence[Curve], source: str) -> Markup:
    opening = Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img"'
        ' aria-label="{}: {}: accuracy over tokens per forward">'
        '<text class="title" x="{}" y="14">{}</text>'
    ).format(WIDTH, HEIGHT, source, title, WIDTH / 2, title)
    points = [point for curve in curves for point in curve.points]
    if not points:
        text = Markup('<text class="title" x="{}" y="{}">not run</text></svg>')
        return opening + text.format(WIDTH / 2, HEIGHT / 2)
    axes = _Axes(points)
    drawn = [axes.drawn(), *(_curve(curve, axes) for curve in curves), Markup("</svg>")]
    return Markup("").join([opening, *drawn])


class _Axes:
    """From numbers to places in the panel, with ticks that cover all points and their bars."""

    def __init__(self, points: Sequence[Point]):
        low = [p.accuracy - (p.accuracy_stderr or 0) for p in points]
        high = [p.accuracy + (p.accuracy_stderr or 0) for p in points]
        speeds = [p.tokens_per_forward for p in points]
        fine = MaxNLocator(5, steps=[1, 2, 5, 10])
        self.x_ticks = fine.tick_values(min(speeds), max(max(speeds), min(speeds) + 0.1))
        self.y_ticks = fine.tick_values(min(low), max(max(high), min(low) + 1))

    def x(self, value: float) -> float:
        share = (value - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    def drawn(self) -> Markup:
        grid = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        across = Markup('<text class="tick" x="{}" y="{}">{:g}</text>')
        down = Markup('<text class="tick side" x="{}" y="{}">{:g}</text>')
        parts = []
        for tick in self.x_ticks:
            parts.append(grid.format(self.x(tick), self.x(tick), TOP, HEIGHT - BOTTOM))
            parts.append(across.format(self.x(tick), HEIGHT - BOTTOM + 12, round(tick, 6)))
        for tick in self.y_ticks:
            parts.append(grid.format(LEFT, WIDTH - RIGHT, self.y(tick), self.y(tick)))
            parts.append(down.format(LEFT - 4, self.y(tick) + 3, round(tick, 6)))
        name = Markup('<text class="tick" x="{}" y="{}">tokens per forward</text>')
        parts.append(name.format((LEFT + WIDTH) / 2, HEIGHT - 6))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        name = Markup('<text class="tick" transform="translate(9 {}) rotate(-90)">{}</text>')
        return Markup("").join([*parts, name.format(middle, "accuracy (%)")])


def _curve(curve: Curve, axes: _Axes) -> Markup:
    dashes, line = _dashes(curve), Markup('<polyline points="{}" stroke="{}"{}/>')
    if curve.level:
        y = axes.y(curve.points[0].accuracy)
        path = f"{LEFT},{y} {WIDTH - RIGHT},{y}"
        return Markup('<g class="point" data-tip="{}">{}</g>').format(
            tip(curve.label, curve.points[0]), line.format(path, curve.colour, dashes)
        )
    places = [(axes.x(p.tokens_per_forward), axes.y(p.accuracy)) for p in curve.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    dots = [
        Markup(
            '<g class="point" data-tip="{}">{}<circle cx="{}" cy="{}" r="3.2" stroke="{}"'
            ' fill="{}"/><title>{}</title></g>'
        ).format(
            tip(curve.label, point),
            _bar(point, x, axes, curve.colour),
            *(x, y, curve.colour),
            "var(--page)" if curve.dashed else curve.colour,
            tip(curve.label, point),
        )
        for point, (x, y) in zip(curve.points, places, strict=True)
    ]
    return Markup("").join([line.format(path, curve.colour, dashes), *dots])


def _bar(point: Point, x: float, axes: _Axes, colour: str) -> Markup:
    if not point.accuracy_stderr:
        return Markup("")
    ends = (axes.y(point.accuracy + sign * point.accuracy_stderr) for sign in (-1, 1))
    bar = Markup('<line class="bar" x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="{3}"/>')
    return bar.format(x, *ends, colour)


def tip(label: str, point: Point) -> str:
    """What a point says of itself: its curve, its threshold, and the numbers there."""
    name = {"probability": "tau"}.get(point.metric, point.metric)
    rule = "one token" if point.threshold is None else f"{name} {point.threshold:g}"
    error = "" if point.accuracy_stderr is None else f" ± {point.accuracy_stderr:.1f}"
    questions = f", {point.n} questions" if point.n else ""
    return (
        f"{label}, {rule}: {point.accuracy:.1f}{error} %,"
        f" {point.tokens_per_forward:.2f} tokens per forward{questions}"
    )
