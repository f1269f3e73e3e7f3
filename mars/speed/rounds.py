"""Rounds in which every decoder takes its turn: as many as the intervals of their means need."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from math import inf, sqrt
from statistics import fmean, stdev
from time import monotonic
from typing import Any

from scipy.stats import t as student

from mars.speed.methods import Pass

CONFIDENCE = 0.95
FEWEST = 3  # rounds, unless the limit is lower: two values may agree by chance
PRECISE = 0.02  # of the mean: half an interval that is narrow enough

Round = Mapping[str, Pass]
"""One pass of each decoder, by name."""


def take_turns(
    runners: Mapping[str, Callable[[], Pass]], limit: int, say: Callable[[str], None]
) -> tuple[dict[str, Pass], list[Round]]:
    """A warm-up pass of each runner, then rounds in which each takes its turn; both results.

    The rounds end when they are precise enough (:func:`imprecision`), at the earliest after
    :data:`FEWEST`, at the latest after ``limit``. Ratios are over the first runner.
    """
    start = monotonic()
    warm_up = {}
    for name, run in runners.items():
        warm_up[name] = run()
        say(f"warm-up of {name}, {warm_up[name].seconds:.1f} s")
    expected = monotonic() - start
    say(f"up to {limit} rounds of about {expected:.0f} s, {limit * expected / 60:.1f} minutes")
    gc.collect()
    gc.freeze()  # so that the collections between passes have little to look at
    rounds: list[Round] = []
    while len(rounds) < limit and not precise_enough(rounds):
        start = monotonic()
        results = {}
        for name, run in runners.items():
            gc.collect()
            results[name] = run()
        rounds.append(results)
        spent, width = monotonic() - start, imprecision(rounds)
        error = f", widest interval ± {width:.1%}" if width < inf else ""
        say(f"round {len(rounds)} of at most {limit}, {spent:.0f} s{error}")
    gc.unfreeze()
    return warm_up, rounds


def precise_enough(rounds: Sequence[Round]) -> bool:
    """Whether no further round is needed."""
    return len(rounds) >= FEWEST and imprecision(rounds) < PRECISE


def imprecision(rounds: Sequence[Round]) -> float:
    """Half the widest 95 % interval, as a share of its mean; infinite below two rounds.

    The intervals are those of each decoder's throughput over that of the first decoder, within a
    round, which a machine that drifts does not widen; of a decoder alone, of its throughput.
    """
    if len(rounds) < 2:
        return inf
    first, *others = rounds[0]
    samples = [ratios(rounds, name, first) for name in others]
    samples = samples or [[one[first].tokens_per_second for one in rounds]]
    return max(half_width(sample) / fmean(sample) for sample in samples)


def ratios(rounds: Sequence[Round], name: str, other: str) -> list[float]:
    """Throughput over that of another within each round."""
    return [turn[name].tokens_per_second / turn[other].tokens_per_second for turn in rounds]


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % confidence interval of a mean, by Student's t; two values or more."""
    quantile = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * stdev(values) / sqrt(len(values))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, its 95 % confidence interval (None for a single value), extremes and the values.

    The interval is nominal where the values themselves decided when to stop: rounds that happen to
    agree end a measurement early.
    """
    mean = fmean(values)
    half = half_width(values) if len(values) > 1 else None
    return {
        "mean": mean,
        "interval": None if half is None else [mean - half, mean + half],
        "range": [min(values), max(values)],
        "values": list(values),
    }
