"""Reading evaluation records: the score a table shows, and averages over benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mars.errors import UserError

if TYPE_CHECKING:
    from mars.config.experiment import Benchmark


class Score(NamedTuple):
    """A value and its standard error (None where there is too little data for one)."""

    value: float
    stderr: float | None


def headline(record: Mapping[str, Any], benchmark: Benchmark | Mapping[str, Any]) -> Score:
    """The score that ``benchmark`` (``metric``, ``filter``) puts into the tables, in 0..1.

    Raises:
        UserError: the record has no such metric or filter.
    """
    wanted = benchmark if isinstance(benchmark, Mapping) else benchmark.model_dump()
    metric, name = wanted["metric"], wanted.get("filter", "none")
    try:
        return Score(**record["metrics"][metric][name])
    except KeyError:
        known = ", ".join(f"{m} ({f})" for m, fs in record["metrics"].items() for f in fs)
        raise UserError(
            f"{wanted['task']} has no metric {metric!r} with filter {name!r}; it has {known}."
        ) from None


def tokens_per_forward(record: Mapping[str, Any]) -> Score:
    """Tokens over forwards, per sequence (docs/differences.md, A2 and A3)."""
    return Score(**record["tokens_per_forward"])


def average(scores: Iterable[Score]) -> Score:
    """Mean of independent scores, as over the six benchmarks; the error of that mean."""
    scores = list(scores)
    if not scores:
        raise ValueError("the average of no scores")
    value = sum(score.value for score in scores) / len(scores)
    errors = [score.stderr for score in scores if score.stderr is not None]
    return Score(value, math.hypot(*errors) / len(scores) if len(errors) == len(scores) else None)


def mean(values: Sequence[float]) -> Score:
    """Mean of a sample and its standard error."""
    return ratio(values, [1.0] * len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Score:
    """``sum(numerators) / sum(denominators)`` of paired, independent observations.

    The standard error is the linearised one of a ratio estimator, which allows for dependence
    within an observation (the instructions of a prompt, the tokens of an answer):
    ``sqrt(n / (n - 1) * sum((y - r x)^2)) / sum(x)``.
    """
    return mean_ratio([numerators], [denominators])


def mean_ratio(
    numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]
) -> Score:
    """Mean over runs of their :func:`ratio`, where every run has the same observations in order.

    The standard error is that over observations alone: the runs are taken as they are.
    """
    runs, n = len(numerators), len(numerators[0])
    totals = [sum(xs) for xs in denominators]
    ratios = [sum(ys) / total for ys, total in zip(numerators, totals, strict=True)]
    value = sum(ratios) / runs
    if n < 2:
        return Score(value, None)
    residuals = [
        [(y - r * x) / total for y, x in zip(ys, xs, strict=True)]
        for ys, xs, r, total in zip(numerators, denominators, ratios, totals, strict=True)
    ]
    squares = math.fsum((sum(one) / runs) ** 2 for one in zip(*residuals, strict=True))
    return Score(value, math.sqrt(n / (n - 1) * squares))
