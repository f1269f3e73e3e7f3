"""The plot of a claim: its numbers with their intervals, beside what the rule asks of them.

Each unit has an axis, and each number a strip on it. Places are in percent of the strip's width, so
that a plot is as wide as there is room while its words keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mars.paper.claims.results import POINTS, SECONDS, TIMES, TOKENS

TITLES = {
    POINTS: "Difference of accuracy, in points",
    TOKENS: "Tokens per forward",
    TIMES: "Speed-up: times as fast",
    SECONDS: "Seconds",
}
MARGIN = 0.04  # of an axis, beyond the outermost mark on either side
REACH = 1.5  # how far an interval is drawn beyond the values, in spans of these
MOST_TICKS = 6

Estimate = Mapping[str, Any]
"""A number behind a claim, as in ``claims.json``."""


@dataclass(frozen=True)
class Strip:
    """A number on its axis, in percent of the width.

    Attributes:
        ours: the number and its interval, in words.
        paper: the paper's number, in words; empty where it has none.
        asked: what the rule asks of the interval, in words; empty where the number decides nothing.
        lower, upper: ends of the interval, or of the axis where it goes beyond (``cut``).
        holds: from where to where the claim holds.
        bounds: which ends of that the rule sets.
        published: place of the paper's number.
    """

    label: str
    ours: str
    paper: str
    asked: str
    verdict: str
    value: float
    lower: float
    upper: float
    cut: tuple[bool, bool]
    holds: tuple[float, float] | None
    bounds: list[float]
    published: float | None
    unit: str

    @property
    def spoken(self) -> str:
        """What the strip shows."""
        decides = f"the claim asks for {self.asked}: {self.verdict}" if self.asked else "only shown"
        parts = (f"{self.label}: {self.ours} {self.unit}", decides, self.paper)
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class Forest:
    """The numbers of one unit, and the ticks of their axis: places, and what they say."""

    unit: str
    strips: list[Strip]
    ticks: list[tuple[float, str]]

    @property
    def title(self) -> str:
        """What is on the axis."""
        return TITLES[self.unit]


def forests(estimates: Iterable[Estimate]) -> list[Forest]:
    """The plots of a claim, one for each unit of its numbers."""
    units: dict[str, list[Estimate]] = {}
    for estimate in estimates:
        units.setdefault(estimate["unit"], []).append(estimate)
    return [_forest(unit, found) for unit, found in units.items()]


def _forest(unit: str, estimates: Sequence[Estimate]) -> Forest:
    low, high = axis(estimates)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    strips = [_strip(one, unit, low, high, place) for one in estimates]
    return Forest(unit, strips, [(place(tick), f"{tick:g}") for tick in ticks(low, high)])


def _strip(one: Estimate, unit: str, low: float, high: float, place: Any) -> Strip:
    floor, ceiling = one["at_least"], one["at_most"]
    bounds = [bound for bound in (floor, ceiling) if bound is not None]
    within = (low if floor is None else floor, high if ceiling is None else ceiling)
    published = one["published"]
    return Strip(
        label=one["label"],
        ours=f"{_number(one['value'], unit)} "
        f"[{_number(one['lower'], unit)}, {_number(one['upper'], unit)}]",
        paper="" if published is None else f"paper {_number(published, unit)}",
        asked=_asked(floor, ceiling),
        verdict=one["verdict"],
        value=place(one["value"]),
        lower=place(max(one["lower"], low)),
        upper=place(min(one["upper"], high)),
        cut=(one["lower"] < low, one["upper"] > high),
        holds=(place(within[0]), place(within[1])) if bounds else None,
        bounds=[place(bound) for bound in bounds],
        published=None if published is None else place(published),
        unit=unit,
    )


def axis(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Both ends of an axis on which all values, bounds and published numbers are.

    Intervals are too, as far as one may look at the rest beside them: that of two rounds of times
    can be a hundred times as wide as the values are apart.
    """
    marks = list(_marks(estimates))
    low, high = min(marks), max(marks)
    span = high - low or 1.0
    lowest = min(one["lower"] for one in estimates)
    highest = max(one["upper"] for one in estimates)
    low = min(low, max(lowest, low - REACH * span))
    high = max(high, min(highest, high + REACH * span))
    margin = MARGIN * (high - low or 1.0)
    return low - margin, high + margin


def _marks(estimates: Iterable[Estimate]) -> Iterator[float]:
    keys = ("value", "at_least", "at_most", "published")
    return (one[key] for one in estimates for key in keys if one[key] is not None)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends, at most :data:`MOST_TICKS` and some."""
    rough = (high - low) / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _asked(floor: float | None, ceiling: float | None) -> str:
    if floor is not None and ceiling is not None:
        return f"{floor:g} to {ceiling:g}"
    if floor is not None:
        return f"at least {floor:g}"
    return "" if ceiling is None else f"at most {ceiling:g}"


def _number(value: float, unit: str) -> str:
    return (
        f"{value:+.1f}"
        if unit == POINTS
        else f"{value:+.2f}"
        if unit == SECONDS
        else f"{value:.2f}"
    )
