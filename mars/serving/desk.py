"""Between the clients and the worker: the event loop's side, which never waits for the engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from mars.decoding.requests import Decoded
from mars.serving.messages import Drop, Ended, Facts, Finish, News, Order, Take
from mars.serving.refusals import RefusedError

SMOOTHING = 0.1  # share of the newest request in the mean time that one runs


class GoneError(Exception):
    """The client went away before its answer was complete."""


class Link(Protocol):
    """The way to a worker and back."""

    facts: Facts

    def begin(self, receive: Callable[[News | None], None]) -> None:
        """From now on, ``receive`` gets the news in the running event loop; None: it has ended."""

    def send(self, order: Order) -> None:
        """Pass on an order, without waiting."""


@dataclass(eq=False)
class Ticket:
    """One request from when it is taken until it has ended.

    Attributes:
        arrived: moment of ``time.perf_counter``.
        outcome: the whole answer, or why there is none.
    """

    number: int
    prompt_tokens: int
    arrived: float = field(default_factory=time.perf_counter)
    outcome: Ended | Exception | None = None
    delivered: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def tokens(self) -> AsyncIterator[list[int]]:
        """The tokens as they come, those of several steps together if the reader is slow."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            tokens, self.delivered = self.delivered, []
            if tokens:
                yield tokens
            if self.outcome is not None:
                return

    async def answer(self) -> Decoded:
        """The whole answer, once it is there.

        Raises:
            GoneError, RefusedError: there is none.
        """
        while self.outcome is None:
            await self.changed.wait()
            self.changed.clear()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome.decoded


class Desk:
    """Takes requests, passes them on, and delivers what comes back.

    Args:
        link: to a worker that has no other desk.
        max_waiting: requests taken beyond those that the slots hold; further ones are refused.

    Attributes:
        on_ended: called with every ticket that has ended.
        on_failure: called once the worker has ended by itself; the desk is of no use then.
    """

    def __init__(self, link: Link, max_waiting: int):
        self.link, self.facts, self.max_waiting = link, link.facts, max_waiting
        self.on_ended: Callable[[Ticket], None] = lambda ticket: None
        self.on_failure: Callable[[], None] = lambda: None
        self.open: dict[int, Ticket] = {}
        self.numbers = count()
        self.running, self.tau = 0, self.facts.tau
        self.closing = self.failed = False
        self.worker_ended = asyncio.Event()
        self.mean_seconds = 0.0  # that a request runs

    def begin(self) -> None:
        """Deliver in the running event loop."""
        self.link.begin(self._receive)

    async def close(self) -> None:
        """Take no more requests, finish those that were taken, and wait for the worker's end."""
        self.closing = True
        if not self.worker_ended.is_set():
            self.link.send(Finish())
            await self.worker_ended.wait()

    @property
    def waiting(self) -> int:
        return max(0, len(self.open) - self.running)

    def take(self, prompt: list[int], max_new_tokens: int, **wishes: Any) -> Ticket:
        """Pass on a request that the engine can serve; ``wishes`` are fields of ``Take``.

        Raises:
            RefusedError: too many wait, or the server is about to end.
        """
        if self.closing:
            raise RefusedError(503, "The server is about to end: ask another one.", "ending")
        if len(self.open) >= self.facts.slots + self.max_waiting:
            after = max(1, math.ceil(self.mean_seconds * self.max_waiting / self.facts.slots))
            raise RefusedError(
                429,
                f"{self.max_waiting} requests are waiting, and no more may: ask again later.",
                "queue_full",
                headers={"Retry-After": str(after)},
            )
        ticket = Ticket(next(self.numbers), len(prompt))
        self.open[ticket.number] = ticket
        self.link.send(Take(ticket.number, prompt, max_new_tokens, **wishes))
        return ticket

    @asynccontextmanager
    async def attended(self, ticket: Ticket, receive: Callable[[], Any]) -> AsyncIterator[None]:
        """While the client is there; once it goes away, or the block is left, the slot is free.

        ``receive`` gives the messages of the connection (ASGI); the request has been read.
        """

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._drop(ticket)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        if ticket.number in self.open:
            self.link.send(Drop(ticket.number))
            self._end(ticket.number, GoneError())

    def _receive(self, news: News | None) -> None:
        if news is None:
            self._lose_worker()
            return
        self.running, self.tau = news.running, news.tau
        for number, tokens in news.tokens.items():
            if number in self.open:
                self.open[number].delivered += tokens
                self.open[number].changed.set()
        for number, ended in news.ended.items():
            seconds = ended.ended - ended.started
            self.mean_seconds += SMOOTHING * (seconds - self.mean_seconds)
            if number in self.open:
                self._end(number, ended)

    def _end(self, number: int, outcome: Ended | Exception) -> None:
        ticket = self.open.pop(number)
        ticket.outcome = outcome
        ticket.changed.set()
        self.on_ended(ticket)

    def _lose_worker(self) -> None:
        """It has finished; or it has failed, and what is open has no answer."""
        self.running = 0
        self.worker_ended.set()
        if not self.closing or self.open:
            self.closing = self.failed = True
            for number in list(self.open):
                self._end(number, RefusedError(500, "The engine has failed: see the server's log."))
            self.on_failure()
