"""What an interval says of a bound: it holds, it does not, or the numbers allow both."""

from __future__ import annotations

from collections.abc import Iterable

from mars.paper.claims.significance import Interval, PairedTest
from mars.paper.tables.table import NOT_RUN

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
MARGIN = 2.0  # points: about two standard errors of a difference of two published averages
FEWEST = 30  # questions per benchmark below which an interval is not to be trusted
FLOOR = 5.0  # percent of accuracy below which there is too little to lose


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
