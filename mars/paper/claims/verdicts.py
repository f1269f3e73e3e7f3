"""What an interval says of a bound: the words for published numbers, and those for claims.

The words say what is known: a difference that is small because it is uncertain is no agreement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


class Verdict(NamedTuple):
    """A word, and how probable data like ours would be if it were wrong.

    ``p``: two-sided, so that a verdict by a 95 % interval has at most 0.05; 1 if nothing is
    decided, 0 if nothing is left to chance.
    """

    word: str
    p: float


OPEN = Verdict(UNDECIDED, 1.0)


def above(value: Interval, bound: float) -> Verdict:
    """Whether a value is above a bound, with the certainty of its interval."""
    if value.lower >= bound:
        return Verdict(HOLDS, _two_sided(value.share_below(bound)))
    return Verdict(FAILS, _two_sided(value.share_above(bound))) if value.upper < bound else OPEN


def below(value: Interval, bound: float) -> Verdict:
    """Whether a value is below a bound, with the certainty of its interval."""
    if value.upper <= bound:
        return Verdict(HOLDS, _two_sided(value.share_above(bound)))
    return Verdict(FAILS, _two_sided(value.share_below(bound))) if value.lower > bound else OPEN


def within(value: Interval, margin: float) -> Verdict:
    """Whether a value is at most ``margin`` from 0, with the certainty of its interval."""
    sides = above(value, -margin), below(value, margin)
    return next((side for side in sides if side.word == FAILS), combined(sides))


def combined(parts: Iterable[Verdict]) -> Verdict:
    """The verdict over several parts: the worst known, and holds only if all parts hold.

    That all hold is as sure as the least sure of them; that one fails, as sure as the surest,
    corrected for their number.
    """
    parts = list(parts)
    if failing := [part.p for part in parts if part.word == FAILS]:
        return Verdict(FAILS, min(1.0, len(parts) * min(failing)))
    if any(part.word == UNDECIDED for part in parts):
        return OPEN
    return Verdict(HOLDS, max(part.p for part in parts)) if parts else Verdict(NOT_RUN, 1.0)


def _two_sided(share: float) -> float:
    return min(1.0, 2 * share)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the smallest times n, the next times n - 1.

    Rejecting what is then below alpha is wrong anywhere with a probability of at most alpha.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = worst
    return corrected
