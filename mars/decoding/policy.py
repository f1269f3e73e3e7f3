"""Who sets tau while an engine runs: nobody, or the length of its queue.

The measurement of the live tau and the server ask the same policies.
"""

from __future__ import annotations

from collections.abc import Callable

Policy = Callable[[int], float | None]
"""Requests waiting -> tau; None is one-token mode, the paper's tau = 1."""


def fixed(tau: float | None) -> Policy:
    """The same tau whatever the load."""
    return lambda waiting: tau


def adaptive(*, high: float, low: float, slots: int) -> Policy:
    """The controller: tau falls as the queue grows.

    One token per forward while no more than a quarter of the slots' number wait (the engine
    collects that many before it admits them); then from ``high`` down to ``low``, in steps of 0.05,
    which is reached when two rounds of requests wait for every slot.
    """

    def tau(waiting: int) -> float | None:
        if waiting <= slots // 4:
            return None
        share = min(1.0, waiting / (2 * slots))
        return round((high - share * (high - low)) * 20) / 20

    return tau
