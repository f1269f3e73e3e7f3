"""The engine's side: follows orders between two steps, and tells what has come of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from mars.decoding.cache import attention_of
from mars.decoding.cursor import Engine
from mars.decoding.policy import Policy
from mars.decoding.requests import Request
from mars.evaluation.stop_strings import StopStrings, Text
from mars.serving.messages import Drop, Ended, Facts, Finish, News, Order, Take

PAUSE = 0.02  # seconds from one delivery of tokens to the next, but for first and last ones


class Worker:
    """Runs an engine until it is told to finish.

    Args:
        engine: nobody else uses it, or its model.
        policy: sets tau of the requests that bring none, before every step.
        text: decodes tokens, to find stop strings.
        tell: takes the news.

    Attributes:
        orders: to be filled by another thread.
    """

    def __init__(
        self, engine: Engine, policy: Policy, text: Text, tell: Callable[[News], None]
    ) -> None:
        self.engine, self.policy, self.text, self.tell = engine, policy, text, tell
        self.orders: SimpleQueue[Order] = SimpleQueue()
        self.tau = policy(0)
        self.taken: dict[int, Take] = {}  # by the engine's identities
        self.identities: dict[int, int] = {}  # by the desk's numbers
        self.started: dict[int, float] = {}  # by the engine's identities
        self.untold: dict[int, list[int]] = {}  # tokens of those that stream, by the desk's numbers
        self.told = 0.0
        self.finishing = False

    @property
    def facts(self) -> Facts:
        engine = self.engine
        vocabulary = engine.cached.model.config.vocab_size
        return Facts(engine.slots, engine.max_length, engine.block_size, vocabulary, self.tau)

    def run(self) -> None:
        """Follow the orders and step, until there is nothing left to do after ``Finish``."""
        with attention_of(self.engine.cached.model):
            while self._follow_orders():
                self._step()

    def _follow_orders(self) -> bool:
        """Do what is wanted, and wait for orders if nothing is to be decoded; False: the end."""
        while not (self.taken and self.orders.empty()):
            if self.finishing and not self.taken:
                return False
            match self.orders.get():
                case Take() as take:
                    self._take(take)
                case Drop(number=number):
                    self._drop(number)
                case Finish(at_once=at_once):
                    self.finishing = True
                    if at_once:
                        return False
        return True

    def _take(self, take: Take) -> None:
        request = Request(
            take.prompt,
            self.tau if take.follows else take.threshold,
            take.max_new_tokens,
            StopStrings(self.text, take.stops) if take.stops else None,
        )
        identity = self.engine.submit(request)
        self.taken[identity] = take
        self.identities[take.number] = identity

    def _drop(self, number: int) -> None:
        identity = self.identities.pop(number, None)
        if identity is not None:
            self.engine.cancel(identity)
            del self.taken[identity]
            self.started.pop(identity, None)
            self.untold.pop(number, None)
            if not self.taken:
                self._tell([], {})

    def _step(self) -> None:
        """Let the policy set tau, then one step of the engine."""
        tau = self.policy(len(self.engine.queue))
        if tau != self.tau:
            self.tau = tau
            followers = [identity for identity, take in self.taken.items() if take.follows]
            self.engine.set_threshold(tau, followers)
        new = self.engine.step()
        now = time.perf_counter()
        urgent = []
        for identity, tokens in new.items():
            take = self.taken[identity]
            if take.streams:
                self.untold.setdefault(take.number, []).extend(tokens)
            if identity not in self.started:
                self.started[identity] = now
                urgent.append(take.number)
        ended = {}
        for identity in self.engine.ended:
            number, decoded = self.taken.pop(identity).number, self.engine.results.pop(identity)
            del self.identities[number]
            ended[number] = Ended(decoded, self.started.pop(identity), now)
        if now - self.told >= PAUSE:
            self.told = now
            self._tell(list(self.untold), ended)
        elif ended or not self.untold.keys().isdisjoint(urgent):
            self._tell([number for number in [*urgent, *ended] if number in self.untold], ended)

    def _tell(self, numbers: Iterable[int], ended: dict[int, Ended]) -> None:
        """Tell the tokens of some, which ones have ended, and how things stand."""
        tokens = {number: self.untold.pop(number) for number in dict.fromkeys(numbers)}
        self.tell(News(tokens, ended, len(self.engine.active), self.tau))
