"""The questions of AR rows answered by a server, and scored and counted as those answered here.

Prompts are made here and sent as token ids. Where the server gives token ids back, the answer is
what the engine would make of these tokens: the same EOS, budget, stop strings and counts. Where it
gives text alone, the tokens are those it counts.

Which weights a server holds cannot be seen from here. Before each benchmark the beginnings of a few
answers are decoded by the checkpoint as well, and a server that disagrees on many is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lm_eval.api.instance import Instance

from mars.decoding.requests import Continuation, Decoded, Request
from mars.errors import UserError
from mars.evaluation.adapter import DecodingLM, Generation, cut
from mars.evaluation.completion_server import Reply, Server
from mars.evaluation.stop_strings import UNKNOWN as HALF_A_CHARACTER
from mars.evaluation.stop_strings import StopStrings

COMPARED, BEGINNING = 8, 16
"""Answers of a benchmark that begin here as well, and the tokens of a beginning."""
SHARE = 3 / 4  # of beginnings that must be equal: in another precision a few are not
WEIGHTS = (
    "those behind the server were not checked, beyond the beginnings of answers that are compared "
    "with the checkpoint's"
)


def compared(answers: int) -> slice:
    """Which of so many answers are compared: some from all over the benchmark."""
    every = max(1, answers // COMPARED)
    return slice(0, every * COMPARED, every)


@dataclass(frozen=True)
class AsTold(Decoded):
    """An answer of which the server gave the text and the number of tokens only."""

    text: str = ""


@dataclass(frozen=True)
class Beginnings:
    """How the beginnings of some answers compare: the server's, and the checkpoint's."""

    answers: int
    tokens: int  # of each, at most
    equal: int


class EndpointLM(DecodingLM):
    """One-token mode is answered by ``server``; whatever else, here.

    Raises:
        UserError: as :class:`Server`; or many answers begin otherwise than the checkpoint's.
    """

    def __init__(self, *arguments: Any, server: Server, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.server = server
        self._beginnings: Beginnings | None = None
        self._replies: list[Reply] = []

    @property
    def sends(self) -> bool:
        """Whether the server answers under the current setting."""
        return self.setting is not None and self.setting.plain

    def decode_all(
        self, requests: list[Instance], prompts: list[list[int]], stops: list[list[str]]
    ) -> list[Decoded]:
        if not self.sends:
            return super().decode_all(requests, prompts, stops)
        self._beginnings = self._compare(requests, prompts, stops)
        self._replies = self.server.answer(prompts, stops, self.max_new_tokens)
        return list(map(self._decoded, self._replies, prompts, stops))

    def facts(self) -> dict[str, Any]:
        """What the record of a cell says of the server; nothing where it was not asked."""
        if not self.sends:
            return {}
        servers = [reply.url for reply in self._replies]
        ids = all(reply.token_ids is not None for reply in self._replies)
        return {
            "endpoint": {
                "model": self.server.model,
                "answers_by_server": {url: servers.count(url) for url in dict.fromkeys(servers)},
                "said_of_the_model": self.server.entry,
                "answers": "token ids" if ids else "text; tokens as the server counts them",
                "beginnings": asdict(self._beginnings) if self._beginnings else None,
                "weights": WEIGHTS,
            },
            "device": "of the endpoint",
            "precision": "of the endpoint",
        }

    def _decoded(self, reply: Reply, prompt: list[int], stop: list[str]) -> Decoded:
        """The reply as if its tokens had come one by one from a model here."""
        if reply.token_ids is None:
            tokens = reply.tokens
            return AsTold([], tokens, [1] * tokens, reply.finish, text=reply.text)
        until = StopStrings(self.tok_decode, stop) if stop else None
        answer = Continuation(Request(prompt, None, self.max_new_tokens, until))
        for token in reply.token_ids:
            answer.gain([token], frozenset(self.eos_token_ids))
            if answer.finish is not None:
                break
        else:
            answer.finish = reply.finish  # of an end that is not among the tokens
        return answer.decoded()

    def _generation(self, answer: Decoded, strings: list[str], truncated: bool) -> Generation:
        if not isinstance(answer, AsTold):
            return super()._generation(answer, strings, truncated)
        text = cut(answer.text, strings)
        return Generation(text, answer.forwards, answer.forwards, answer.finish, 0, truncated)

    def _compare(
        self, requests: list[Instance], prompts: list[list[int]], stops: list[list[str]]
    ) -> Beginnings:
        """Begin a few answers here and there."""
        some = compared(len(prompts))
        asked = prompts[some], stops[some]
        with self._only_beginnings():
            here = super().decode_all(requests[some], *asked)
            told = self.server.answer(*asked, self.max_new_tokens, keep=False)
            there = list(map(self._decoded, told, *asked))
        equal = sum(
            self._beginning(one, stop) == self._beginning(other, stop)
            for one, other, stop in zip(here, there, stops[some], strict=True)
        )
        if equal < SHARE * len(here):
            raise UserError(
                f"{self.server.model} at {self.server.url} begins {len(here) - equal} of "
                f"{len(here)} answers otherwise than the checkpoint does; start the server with "
                "this checkpoint, or remove the model from `evaluation.endpoint`."
            )
        return Beginnings(len(here), BEGINNING, equal)

    def _beginning(self, answer: Decoded, stop: list[str]) -> str:
        """Its text without what may be half of a character."""
        text = self._generation(answer, stop, truncated=False).text
        return text.strip().rstrip(HALF_A_CHARACTER)

    @contextmanager
    def _only_beginnings(self) -> Iterator[None]:
        whole, self.max_new_tokens = self.max_new_tokens, min(BEGINNING, self.max_new_tokens)
        try:
            yield
        finally:
            self.max_new_tokens = whole
