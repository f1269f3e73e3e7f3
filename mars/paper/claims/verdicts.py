"""What a difference from a published number is called, given how sure it is and what matters.

The words say what is known: a difference that is small because it is uncertain is no agreement.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from scipy import stats

AGREES, COMPATIBLE, UNDECIDED, DIFFERS = "agrees", "compatible", "undecided", "differs"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Uncertain:
    """A number and its standard error; ``freedom``: degrees of freedom of Student's t, or normal.

    Times have few rounds and so few degrees of freedom; scores have many questions.
    """

    value: float
    stderr: float
    freedom: float = inf

    @property
    def half(self) -> float:
        """Half its 95 % interval."""
        return self.stderr * float(self._distribution.ppf((1 + CONFIDENCE) / 2))

    @property
    def _distribution(self) -> Any:
        return stats.norm if self.freedom == inf else stats.t(self.freedom)


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
    return 2 * float(difference._distribution.sf(errors))
