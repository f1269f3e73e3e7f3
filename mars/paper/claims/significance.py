"""Paired tests: two ways of answering the same questions, and how sure their difference is.

Benchmarks are independent of each other, and each counts the same in an average, whatever its
number of questions. Where a model was trained several times, each training is compared with that
of the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from mars.paper.claims.intervals import Interval, bootstrap, bootstrap_ratio
from mars.paper.claims.verdicts import HOLDS, OPEN, Verdict, above, holm
from mars.paper.evaluations import Evaluations, ModelAndSetting, Question
from mars.paper.specs import seeds_of
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import Line

MARGIN = 2.0  # points: about two standard errors of a difference of two published averages
FEWEST = 30  # questions per benchmark below which an interval is not to be trusted
FLOOR = 5.0  # percent of accuracy below which there is too little to lose


@dataclass(frozen=True)
class BenchmarkTest:
    """The same difference on one benchmark.

    Attributes:
        gained, lost: questions that only the first (only the second) run has right; None where a
            score is not right or wrong, or there are several trainings.
        p: that the difference is 0: of McNemar's exact test where there are such counts, else of
            the draws.
        p_holm: the same after Holm's correction for the benchmarks of the test.
    """

    title: str
    questions: int
    difference: Interval
    gained: int | None
    lost: int | None
    p: float
    p_holm: float


@dataclass(frozen=True)
class PairedTest:
    """Accuracy of one run minus that of another over the same questions, in points.

    Attributes:
        comparison: which run minus which, in words.
        trainings: of the model that was trained the fewest times; of one, the difference is known
            of this training alone.
        reference: average accuracy of the run that the other one is compared with, in percent.
        difference: the average over the benchmarks, each of which counts the same.
        published: the same by the paper's numbers; None where it has not all of them.
    """

    comparison: str
    trainings: int
    reference: float | None
    difference: Interval
    benchmarks: list[BenchmarkTest]
    published: float | None = None

    @property
    def questions(self) -> int:
        """Over all benchmarks."""
        return sum(one.questions for one in self.benchmarks)

    @property
    def fewest(self) -> int:
        """Questions of the benchmark that has the fewest."""
        return min(one.questions for one in self.benchmarks)

    def __str__(self) -> str:
        titles = [one.title for one in self.benchmarks]
        over = f"{len(titles)} benchmarks" if len(titles) > 3 else ", ".join(titles)
        times = "" if self.trainings == 1 else f", {self.trainings} trainings"
        return f"{self.difference} points ({self.questions} questions of {over}{times})"

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        parts = [vars(one) | {"difference": one.difference.plain()} for one in self.benchmarks]
        own = {"questions": self.questions, "difference": self.difference.plain()}
        values = {**vars(self), **own, "benchmarks": parts}
        return {"what": values.pop("comparison"), **values}


def stderr_of(line: Line) -> float | None:
    """Standard error of a cell of a tidy table; None where there is none."""
    return None if line["stderr"] in (NOT_RUN, NONE) else float(line["stderr"])


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Under the null hypothesis each discordant question falls on either side with probability 1/2.
    """
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def combined_test(
    comparison: str, evaluations: Evaluations, terms: Mapping[ModelAndSetting, int]
) -> PairedTest | None:
    """Test a signed sum of rows, question by question: a difference, or one of differences.

    Returns:
        None where the rows share no benchmark with a score per question.
    """
    scores = {
        title: found
        for title in evaluations.keys
        if (found := [_by_training(evaluations, run, title) for run in terms])
        and all(found)
        and all(one.keys() == found[0][0].keys() for rows in found for one in rows)
    }
    if not scores:
        return None
    trainings = min(len(rows) for found in scores.values() for rows in found)
    groups = {title: _signed_sum(found, list(terms.values())) for title, found in scores.items()}
    return PairedTest(
        comparison=comparison,
        trainings=trainings,
        reference=_reference(scores, terms) if len(terms) == 2 else None,
        difference=bootstrap([100 * group for group in groups.values()]),
        benchmarks=_by_benchmark(groups, one_or_none=len(terms) == 2),
    )


def _by_benchmark(groups: Mapping[str, np.ndarray], one_or_none: bool) -> list[BenchmarkTest]:
    """The tests of each benchmark; ``one_or_none``: whether a question may count as won or lost."""
    tests = []
    for title, group in groups.items():
        difference, gained, lost = bootstrap([100 * group]), None, None
        p = difference.p_value(0.0)
        if one_or_none and len(group) == 1 and set(group.ravel()) <= {-1.0, 0.0, 1.0}:
            gained, lost = int((group == 1).sum()), int((group == -1).sum())
            p = mcnemar(gained, lost)
        tests.append(BenchmarkTest(title, group.shape[1], difference, gained, lost, p, p))
    corrected = holm([one.p for one in tests])
    return [replace(one, p_holm=p) for one, p in zip(tests, corrected, strict=True)]


def _by_training(
    evaluations: Evaluations, run: ModelAndSetting, title: str
) -> list[dict[Question, float]]:
    """The scores of each training of a model; nothing of one without a score per question."""
    names = seeds_of(str(run.model), evaluations.spec.models)
    keys = (evaluations.key(run._replace(model=name), title) for name in names)
    return [scores for key in keys if (scores := evaluations.question_scores(key))]


def _signed_sum(found: Sequence[list[dict[Question, float]]], signs: Sequence[int]) -> np.ndarray:
    """Signed sum of the rows' scores, [trainings, questions]; a single training serves for all."""
    number = min((len(rows) for rows in found if len(rows) > 1), default=1)
    return sum(
        (
            sign * np.array([[one[q] for q in found[0][0]] for one in rows[:number]])
            for rows, sign in zip(found, signs, strict=True)
        ),
        start=np.zeros((number, len(found[0][0]))),
    )


def _reference(
    scores: Mapping[str, Sequence[list[dict[Question, float]]]],
    terms: Mapping[ModelAndSetting, int],
) -> float:
    """Average accuracy of the row that is taken off."""
    (place,) = (place for place, sign in enumerate(terms.values()) if sign < 0)
    means = [
        np.mean([list(one.values()) for one in found[place]]).item() for found in scores.values()
    ]
    return 100 * sum(means) / len(means)


def speed(
    evaluations: Evaluations, run: ModelAndSetting, overrun: bool = False
) -> tuple[Interval, int, int] | None:
    """Average tokens per forward of a row over the benchmarks it was run on.

    Args:
        overrun: count the tokens accepted beyond an answer's end too, as the authors' code does
            (docs/differences.md, A2).

    Returns:
        The interval over trainings and questions, the number of trainings, and the questions of
        the benchmark that has the fewest; None where answers were not counted.
    """
    found = [_costs(evaluations, run, title, overrun) for title in evaluations.keys]
    groups = [one for one in found if one is not None]
    if not groups:
        return None
    number = min(len(tokens) for tokens, _ in groups)
    groups = [(tokens[:number], forwards[:number]) for tokens, forwards in groups]
    return bootstrap_ratio(groups), number, min(tokens.shape[1] for tokens, _ in groups)


def _costs(
    evaluations: Evaluations, run: ModelAndSetting, title: str, overrun: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens and forwards of the answers, [trainings, questions]."""
    names = seeds_of(str(run.model), evaluations.spec.models)
    keys = (evaluations.key(run._replace(model=name), title) for name in names)
    trainings = [rows for key in keys if (rows := evaluations.answers.get(key))]
    if not trainings or len({len(rows) for rows in trainings}) > 1:
        return None
    columns = ("tokens", "forwards", "overrun")
    tokens, forwards, more = (
        np.array([[row.get(column, 0) for row in rows] for rows in trainings]) for column in columns
    )
    return (tokens + overrun * more, forwards) if forwards.sum(1).all() else None


def no_worse(test: PairedTest) -> Verdict:
    """Whether a paired difference is no loss of more than the margin."""
    verdict = above(test.difference, -MARGIN)
    could_lose = test.reference is not None and test.reference >= FLOOR
    return trusted(test.fewest, verdict if could_lose or verdict.word != HOLDS else OPEN)


def trusted(fewest: int, verdict: Verdict) -> Verdict:
    """The verdict, if the smallest of its benchmarks has the questions to bear it."""
    return verdict if fewest >= FEWEST else OPEN
