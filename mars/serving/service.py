"""What becomes of a request before it is queued: key, form, tokens, and whether it fits."""

from __future__ import annotations

import asyncio
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from jinja2 import TemplateError
from starlette.requests import Request
from transformers import PreTrainedTokenizerBase

from mars.decoding.generate import chat_ids
from mars.serving.desk import Desk, Ticket
from mars.serving.metrics import Metrics
from mars.serving.protocol import Chat, Completion, Form, read
from mars.serving.refusals import RefusedError
from mars.serving.text import text_with

MOST_BYTES = 8_000_000  # of a request


@dataclass
class Service:
    """What the endpoints share.

    Args:
        desk: not yet begun.
        tokenizers: one to encode with and one to decode with, which are not the same: they are
            used in several threads.
        name: of the model, as clients ask for it.
        api_key: clients must bring it; None: they need none.
    """

    desk: Desk
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]
    name: str
    metrics: Metrics
    api_key: str | None = None
    began: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.encoder, decoder = self.tokenizers
        self.text = text_with(decoder)
        self.clerk = ThreadPoolExecutor(1, "encoder")
        self.desk.on_ended = self.metrics.ended
        self.metrics.watch(self.desk)

    async def take(self, call: Request, kind: type[Form]) -> tuple[Form, Ticket]:
        """Read a request and queue it.

        Raises:
            RefusedError: it cannot be served, or not now.
        """
        self.check_key(call)
        form = read(await read_body(call), kind)
        if form.model != self.name:
            raise RefusedError(
                404,
                f"The model {form.model!r} is not served here: ask for {self.name!r}.",
                "model_not_found",
                param="model",
            )
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self.clerk, self.prompt_ids, form)
        return form, self.queue(form, prompt)

    def check_key(self, call: Request) -> None:
        """Raise ``RefusedError`` if the client lacks the key."""
        given = call.headers.get("authorization", "").encode("latin-1")  # the bytes as they came
        wanted = f"Bearer {self.api_key}".encode()
        if self.api_key is not None and not hmac.compare_digest(given, wanted):
            raise RefusedError(
                401,
                "The API key is missing or wrong: send it as `Authorization: Bearer <key>`.",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def prompt_ids(self, form: Form) -> list[int]:
        """The tokens that the model is to continue; not in the event loop, it may take long."""
        match form:
            case Chat():
                if not self.encoder.chat_template:
                    raise RefusedError(400, "The model has no chat template: use /v1/completions.")
                try:
                    return chat_ids(self.encoder, form.turns())
                except TemplateError as error:
                    raise RefusedError(
                        400, f"The chat template refuses the messages: {error}.", param="messages"
                    ) from error
            case Completion(prompt=str(text)):
                return self.encoder(text)["input_ids"]
            case Completion(prompt=list(ids)):
                return ids
        raise AssertionError(form)

    def queue(self, form: Form, prompt: list[int]) -> Ticket:
        """Take the request, if the engine can serve it.

        Raises:
            RefusedError: it cannot, or not now.
        """
        facts = self.desk.facts
        if not prompt:
            raise RefusedError(400, "The prompt is empty: give at least one token.")
        if not 0 <= min(prompt) <= max(prompt) < facts.vocabulary:
            raise RefusedError(
                400, f"The prompt holds a token id outside the vocabulary ({facts.vocabulary})."
            )
        room = facts.max_length - len(prompt)
        budget = room if form.budget is None else form.budget
        if room < max(1, budget):
            asked = "" if form.budget is None else f" and max_tokens ({budget})"
            raise RefusedError(
                400,
                f"The prompt ({len(prompt)} tokens){asked} exceed the context of "
                f"{facts.max_length} tokens: shorten one.",
                "context_length_exceeded",
            )
        if form.tau is not None and form.tau < 1 and facts.block_size == 1:
            raise RefusedError(
                400,
                f"tau={form.tau} cannot be honoured, because the model has one token per forward: "
                "leave it out.",
                "unsupported_value",
                param="tau",
            )
        return self.desk.take(
            prompt,
            budget,
            threshold=form.tau,
            follows=not form.has_tau,
            streams=form.stream,
            stops=tuple(form.stop),
        )


async def read_body(call: Request) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it is too long for any context.
    """
    parts, length = [], 0
    async for part in call.stream():
        parts.append(part)
        length += len(part)
        if length > MOST_BYTES:
            raise RefusedError(413, f"The body is longer than {MOST_BYTES:,} bytes.")
    return b"".join(parts)
