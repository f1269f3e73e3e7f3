"""What the desk and the worker tell each other; all of it can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass

from mars.decoding.requests import Decoded


@dataclass(frozen=True)
class Take:
    """Decode this; ``number`` is the desk's name for it."""

    number: int
    prompt: list[int]
    max_new_tokens: int
    threshold: float | None = None
    follows: bool = False  # whether the policy sets tau, and not ``threshold``
    streams: bool = False  # whether its tokens are told as they come
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drop:
    """Nobody waits for this one any more; it may have ended already."""

    number: int


@dataclass(frozen=True)
class Finish:
    """Nothing more will come: end once all is decoded, or at once."""

    at_once: bool = False


Order = Take | Drop | Finish


@dataclass(frozen=True)
class Ended:
    """A whole answer, and when it had its first and its last token (``time.perf_counter``)."""

    decoded: Decoded
    started: float
    ended: float


@dataclass(frozen=True)
class News:
    """What has happened since the news before."""

    tokens: dict[int, list[int]]  # of those that stream
    ended: dict[int, Ended]
    running: int  # at present
    tau: float | None  # of those that bring none, at present


@dataclass(frozen=True)
class Facts:
    """What the desk must know of the engine."""

    slots: int
    max_length: int  # most tokens of a prompt and its answer
    block_size: int
    vocabulary: int
    tau: float | None  # of those that bring none, at first
