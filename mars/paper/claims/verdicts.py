"""What an interval says of a bound: the words for published numbers, and those for claims.

The words say what is known: a difference that is small because it is uncertain is no agreement.
"""

from __future__ import annotations

from collections.abc import Iterable

from mars.paper.claims.intervals import Interval, Uncertain
from mars.paper.tables.table import NOT_RUN

AGREES, COMPATIBLE, UNDECIDED, DIFFERS = "agrees", "compatible", "undecided", "differs"
HOLDS, FAILS = "holds", "does not hold"


# --- of a published number ----------------------------------------------------------------------


def equivalence(difference: Uncertain, tolerance: float) -> str:
    """What to say of a difference by its 95 % interval; exactly one word fits any interval.

    * agrees: all of it lies within the tolerance on either side of 0.
    * differs: all of it lies outside, on one side.
    * compatible: neither, and it contains 0.
    * undecided: neither, and it does not: there is a difference, which may or may not matter.
    """
    size, half = abs(difference.value), difference.half
    if size + half <= tolerance:
        return AGREES
    if size - half > tolerance:
        return DIFFERS
    return COMPATIBLE if size <= half else UNDECIDED


def chance_to_differ(difference: Uncertain, tolerance: float) -> float:
    """Probability of the verdict *differs* if in truth there were no difference at all."""
    if difference.stderr == 0:
        return 0.0
    errors = (tolerance + difference.half) / difference.stderr
    return 2 * float(difference.distribution.sf(errors))


# --- of a claim ---------------------------------------------------------------------------------


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


def within(value: Interval, margin: float) -> str:
    """Whether a value is at most ``margin`` from 0, with the certainty of its interval."""
    if -margin <= value.lower and value.upper <= margin:
        return HOLDS
    return FAILS if value.lower > margin or value.upper < -margin else UNDECIDED


def combined(verdicts: Iterable[str]) -> str:
    """The verdict over several parts: the worst known, and holds only if all parts hold."""
    verdicts = list(verdicts)
    for word in (FAILS, UNDECIDED):
        if word in verdicts:
            return word
    return HOLDS if verdicts else NOT_RUN
