"""Paired tests: two ways of answering the same questions, how sure their difference is, verdicts.

Questions are the units. Benchmarks are independent of each other and each counts the same in an
average, whatever its number of questions, so questions are resampled within their benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mars.paper.evaluations import Evaluations, ModelAndSetting
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import Line

DRAWS = 10_000
SEED = 0
CONFIDENCE = 0.95
Z = 1.96  # standard errors on either side of a value that make the same interval
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
MARGIN = 2.0  # points: about two standard errors of a difference of two published averages
FEWEST = 30  # questions per benchmark below which an interval is not to be trusted
FLOOR = 5.0  # percent of accuracy below which there is too little to lose


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    lower: float
    upper: float

    @classmethod
    def of(cls, value: float, stderr: float | None) -> Interval:
        """The interval of a value with a known standard error; without one it has no width."""
        half = Z * (stderr or 0.0)
        return cls(value, value - half, value + half)

    def distance(self) -> Interval:
        """How far the value is from 0."""
        ends = sorted((abs(self.lower), abs(self.upper)))
        nearest = 0.0 if self.lower <= 0 <= self.upper else ends[0]
        return Interval(abs(self.value), nearest, ends[1])

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.lower:+.1f}, {self.upper:+.1f}]"


@dataclass(frozen=True)
class PairedTest:
    """Accuracy of one run minus that of another over the same questions, in points.

    Attributes:
        comparison: which run minus which, in words.
        titles: the benchmarks over which ``difference`` is the average.
        questions: how many, over all of them.
        fewest: questions of the benchmark that has the fewest.
        reference: average accuracy of the run that the other one is compared with, in percent.
        gained, lost: questions that only the first (only the second) run has right.
        p: of McNemar's exact test over all questions; None where scores are not right or wrong.
    """

    comparison: str
    titles: list[str]
    questions: int
    fewest: int
    reference: float | None
    difference: Interval
    gained: int | None
    lost: int | None
    p: float | None

    def __str__(self) -> str:
        sure = "" if self.p is None else f", McNemar p = {self.p:.2g}"
        many = len(self.titles) > 3
        over = f"{len(self.titles)} benchmarks" if many else ", ".join(self.titles)
        return f"{self.difference} points ({self.questions} questions of {over}{sure})"

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        return {"what": values.pop("comparison"), **values}


def stderr_of(line: Line) -> float | None:
    """Standard error of a cell of a tidy table; None where there is none."""
    return None if line["stderr"] in (NOT_RUN, NONE) else float(line["stderr"])


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Under the null hypothesis each discordant question falls on either side with probability 1/2:
    twice the binomial probability of a split at least as uneven, at most 1.
    """
    discordant = gained + lost
    term = total = 1
    for index in range(min(gained, lost)):
        term = term * (discordant - index) // (index + 1)
        total += term
    return min(1.0, 2 * total / 2**discordant)


def bootstrap_mean(
    groups: Sequence[Sequence[float]], draws: int = DRAWS, seed: int = SEED
) -> Interval:
    """Mean over the groups of their means, with its percentile bootstrap interval.

    Drawing n of n values with replacement decides how often each distinct value is drawn, and these
    counts are multinomial; so a group costs its distinct values, not its size.

    Args:
        groups: values of independent groups, e.g. the per-question differences of each benchmark.

    Raises:
        ValueError: no group, or an empty one.
    """
    if not groups or not all(map(len, groups)):
        raise ValueError("a bootstrap needs values in every group")
    random = np.random.default_rng(seed)
    means = np.zeros(draws)
    for group in groups:
        values, counts = np.unique(np.asarray(group, dtype=float), return_counts=True)
        drawn = random.multinomial(len(group), counts / len(group), size=draws)
        means += drawn @ values / len(group)
    value = sum(sum(group) / len(group) for group in groups) / len(groups)
    return interval_of(value, means / len(groups))


def bootstrap_weights(questions: int, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """How often each question is drawn: shape (draws, questions), rows sum to ``questions``."""
    random = np.random.default_rng(seed)
    return random.multinomial(questions, np.full(questions, 1 / questions), size=draws)


def interval_of(value: float, draws: np.ndarray) -> Interval:
    """A value with the percentile interval of its bootstrap draws."""
    tail = 100 * (1 - CONFIDENCE) / 2
    lower, upper = np.percentile(draws, [tail, 100 - tail])
    return Interval(value, float(lower), float(upper))


def combined_test(
    comparison: str, evaluations: Evaluations, terms: Mapping[ModelAndSetting, int]
) -> PairedTest | None:
    """Test a signed sum of rows, question by question: a difference, or one of differences.

    Returns:
        None where the rows share no benchmark with a score per question.
    """
    groups = _signed_sums(evaluations, terms)
    if not groups:
        return None
    differences = [value for group in groups.values() for value in group]
    gained = lost = p = None
    if len(terms) == 2 and set(differences) <= {-1.0, 0.0, 1.0}:
        gained, lost = differences.count(1.0), differences.count(-1.0)
        p = mcnemar(gained, lost)
    return PairedTest(
        comparison=comparison,
        titles=list(groups),
        questions=len(differences),
        fewest=min(map(len, groups.values())),
        reference=_reference(evaluations, terms, list(groups)) if len(terms) == 2 else None,
        difference=bootstrap_mean([[100 * value for value in group] for group in groups.values()]),
        gained=gained,
        lost=lost,
        p=p,
    )


def _reference(
    evaluations: Evaluations, terms: Mapping[ModelAndSetting, int], titles: Sequence[str]
) -> float:
    """Average accuracy of the row that is taken off."""
    (run,) = (run for run, sign in terms.items() if sign < 0)
    scores = [evaluations.question_scores(evaluations.key(run, title)) for title in titles]
    return sum(100 * sum(one.values()) / len(one) for one in scores) / len(scores)


def _signed_sums(
    evaluations: Evaluations, terms: Mapping[ModelAndSetting, int]
) -> dict[str, list[float]]:
    """By benchmark title, the signed sum of the rows' scores of each question."""
    groups = {}
    for title in evaluations.keys:
        keys = (evaluations.key(run, title) for run in terms)
        scores = [evaluations.question_scores(key) for key in keys]
        if scores[0] and all(one.keys() == scores[0].keys() for one in scores):
            groups[title] = [
                math.fsum(sign * one[q] for sign, one in zip(terms.values(), scores, strict=True))
                for q in scores[0]
            ]
    return groups


# --- what an interval says of a bound: it holds, it does not, or the numbers allow both ----------


def combined(verdicts: Iterable[str]) -> str:
    """The verdict over several parts: the worst known, and holds only if all parts hold."""
    verdicts = list(verdicts)
    for word in (FAILS, UNDECIDED):
        if word in verdicts:
            return word
    return HOLDS if verdicts else NOT_RUN


def above(value: Interval, bound: float) -> str:
    """Whether a value is above a bound, with the certainty of its interval."""
    if value.lower >= bound:
        return HOLDS
    return FAILS if value.upper < bound else UNDECIDED


def below(value: Interval, bound: float) -> str:
    """Whether a value is below a bound, with the certainty of its interval."""
    if value.upper <= bound:
        return HOLDS
    return FAILS if value.lower > bound else UNDECIDED


def no_worse(test: PairedTest) -> str:
    """Whether a paired difference is no loss of more than the margin."""
    verdict = above(test.difference, -MARGIN)
    could_lose = test.reference is not None and test.reference >= FLOOR
    return trusted(test.fewest, verdict if could_lose or verdict != HOLDS else UNDECIDED)


def trusted(fewest: int, verdict: str) -> str:
    """The verdict, if the smallest of its benchmarks has the questions to bear it."""
    return verdict if fewest >= FEWEST else UNDECIDED
