"""95 % intervals: over questions and trainings by a two-way bootstrap, over rounds by Student's t.

A claim about a method is about the trainings one might have made and the questions one might have
asked. Both are drawn, and crossed: every training answers every question.

* Questions are drawn with replacement, within their benchmark; all trainings get the same ones.
* Few trainings cannot be drawn with replacement: three can be drawn in ten ways, and the interval
  would cover the truth too rarely. What they add is drawn from Student's t instead, with as much
  variance as the trainings' means show beyond what they owe to single answers that changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 10_000
FEWER_DRAWS = 2000  # where hardly two questions are alike, and a draw costs as much as all of them
SEED = 0
CONFIDENCE = 0.95
ROWS = 500  # draws made at a time, so that many questions fit into memory


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval; ``draws``: what it may be, each as likely."""

    value: float
    lower: float
    upper: float
    draws: np.ndarray = field(compare=False, repr=False)

    @classmethod
    def of(cls, value: float, draws: np.ndarray) -> Interval:
        """The percentile interval of a value's draws."""
        tail = 100 * (1 - CONFIDENCE) / 2
        lower, upper = np.percentile(draws, [tail, 100 - tail])
        return cls(value, float(lower), float(upper), draws)

    def share_below(self, bound: float) -> float:
        """Probability that the truth is below a bound, by the draws; never quite 0."""
        return (1 + float((self.draws < bound).sum())) / (1 + len(self.draws))

    def share_above(self, bound: float) -> float:
        """Probability that the truth is above a bound, by the draws; never quite 0."""
        return (1 + float((self.draws > bound).sum())) / (1 + len(self.draws))

    def p_value(self, truth: float) -> float:
        """Two-sided p-value of the hypothesis that this is the truth, by the draws."""
        tails = 1 - self.share_above(truth), 1 - self.share_below(truth)
        return min(1.0, 2 * (min(tails) + 1 / (1 + len(self.draws))))

    def plain(self) -> dict[str, float]:
        """Value and ends, for JSON."""
        return {"value": self.value, "lower": self.lower, "upper": self.upper}

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.lower:+.1f}, {self.upper:+.1f}]"


@dataclass(frozen=True)
class Uncertain:
    """A number and its standard error; ``freedom``: degrees of freedom of Student's t, or normal.

    Times have few rounds and so few degrees of freedom; scores have many questions.
    """

    value: float
    stderr: float
    freedom: float = inf

    @property
    def distribution(self) -> Any:
        """Of the error, in standard errors."""
        return stats.norm if self.freedom == inf else stats.t(self.freedom)

    @property
    def half(self) -> float:
        """Half its 95 % interval."""
        return self.stderr * float(self.distribution.ppf((1 + CONFIDENCE) / 2))

    def interval(self) -> Interval:
        """The interval, and evenly spaced quantiles as its draws."""
        quantiles = self.distribution.ppf((np.arange(DRAWS) + 0.5) / DRAWS)
        ends = self.value - self.half, self.value + self.half
        return Interval(self.value, *ends, self.value + self.stderr * quantiles)


def two_way(values: np.ndarray, draws: np.ndarray, seed: int = SEED) -> Interval:
    """The mean over trainings of a statistic, with its interval over trainings and questions.

    The variance of the trainings' means is that of the trainings and that of single answers which
    differ from training to training. The latter is in the draws over questions already, and shows
    there: it is what averaging over the trainings takes away.

    Args:
        values: the statistic of each training, [trainings].
        draws: the same for drawn questions, the same ones for every training, [trainings, draws].
    """
    number, mean = len(values), draws.mean(0)
    if number > 1:
        flips = max(0.0, (draws.var(1).mean() - mean.var()) / (number - 1))
        excess = max(0.0, values.var(ddof=1) / number - flips)
        random = np.random.default_rng([seed, number])
        mean = mean + math.sqrt(excess) * random.standard_t(number - 1, len(mean))
    return Interval.of(float(values.mean()), mean)


def bootstrap(groups: Sequence[Any], draws: int = DRAWS, seed: int = SEED) -> Interval:
    """Mean over benchmarks of the mean score, with its two-way bootstrap interval.

    Args:
        groups: of each benchmark, scores [trainings, questions] or, of one training, [questions];
            e.g. per-question differences of two runs. Benchmarks count the same, whatever their
            number of questions.

    Raises:
        ValueError: no benchmark, or one without a question.
    """
    tables = [np.atleast_2d(np.asarray(group, dtype=float)) for group in groups]
    if not tables or not all(table.size for table in tables):
        raise ValueError("a bootstrap needs values in every group")
    random = np.random.default_rng(seed)
    values = np.mean([table.mean(1) for table in tables], axis=0)
    drawn = np.mean([_resampled(table, random, draws) for table in tables], axis=0)
    return two_way(values, drawn, seed)


def bootstrap_ratio(
    groups: Sequence[tuple[Any, Any]], draws: int = FEWER_DRAWS, seed: int = SEED
) -> Interval:
    """Mean over benchmarks of a ratio of sums over questions, e.g. tokens over forwards.

    Args:
        groups: of each benchmark, numerators and denominators, both [trainings, questions].
    """
    random = np.random.default_rng(seed)
    values, drawn = [], []
    for pair in groups:
        above, below = (np.atleast_2d(np.asarray(one, dtype=float)) for one in pair)
        values.append(above.sum(1) / below.sum(1))
        means = _resampled(np.concatenate([above, below]), random, draws)
        drawn.append(means[: len(above)] / means[len(above) :])
    return two_way(np.mean(values, axis=0), np.mean(drawn, axis=0), seed)


def _resampled(table: np.ndarray, random: np.random.Generator, draws: int) -> np.ndarray:
    """Means of the rows of [rows, questions] over drawn questions, [rows, draws].

    Drawing n of n questions with replacement decides how often each distinct column is drawn, and
    these counts are multinomial; so a benchmark costs its distinct columns, not its questions.
    """
    columns, counts = np.unique(table, axis=1, return_counts=True)
    number = table.shape[1]
    parts = [
        columns @ random.multinomial(number, counts / number, size=size).T
        for size in _sizes(draws, ROWS)
    ]
    return np.concatenate(parts, axis=1) / number


def bootstrap_weights(questions: int, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """How often each question is drawn: shape (draws, questions), rows sum to ``questions``."""
    random = np.random.default_rng(seed)
    return random.multinomial(questions, np.full(questions, 1 / questions), size=draws)


def _sizes(total: int, most: int) -> Iterator[int]:
    """``total`` in parts of at most ``most``."""
    for start in range(0, total, most):
        yield min(most, total - start)
