"""What a client gets for an answer: one object, or a stream of server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from mars.decoding.requests import Decoded
from mars.serving.desk import GoneError, Ticket
from mars.serving.protocol import Chat, Form
from mars.serving.refusals import RefusedError
from mars.serving.text import Reply


@dataclass
class Writer:
    """The responses to one request, whole or in pieces."""

    form: Form
    ticket: Ticket
    reply: Reply
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        chat = isinstance(self.form, Chat)
        self.head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.identity}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.form.model,
        }

    def whole(self, decoded: Decoded) -> dict[str, Any]:
        """The answer as one object."""
        text = self.reply.add(decoded.tokens) + self.reply.end()
        if isinstance(self.form, Chat):
            said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        else:
            said = {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self.finish(decoded)}
        return {**self.head, "choices": [choice], "usage": self.usage(decoded)}

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as the objects of a stream.

        Raises:
            GoneError, RefusedError: it broke off.
        """
        if isinstance(self.form, Chat):
            self.head["object"] = "chat.completion.chunk"
            yield self.piece({"role": "assistant", "content": ""})
        async for tokens in self.ticket.tokens():
            if text := self.reply.add(tokens):
                yield self.piece(self.said(text))
        decoded = await self.ticket.answer()
        if text := self.reply.end():
            yield self.piece(self.said(text))
        yield self.piece(self.said(""), self.finish(decoded))
        if self.form.stream_options.include_usage:
            yield {**self.head, "choices": [], "usage": self.usage(decoded)}

    def said(self, text: str) -> dict[str, Any]:
        return {"content": text} if text else {}

    def piece(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One object of a stream."""
        if isinstance(self.form, Chat):
            said: dict[str, Any] = {"delta": delta}
        else:
            said = {"text": delta.get("content", "")}
        usage = {"usage": None} if self.form.stream_options.include_usage else {}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return {**self.head, "choices": [choice], **usage}

    def finish(self, decoded: Decoded) -> str:
        """Why the answer ended; a stop string may stand in the last tokens of the budget."""
        return "length" if decoded.finish == "length" and not self.reply.stopped else "stop"

    def usage(self, decoded: Decoded) -> dict[str, int]:
        """What it cost: tokens as decoded, and forwards of this sequence, the prompt's included."""
        prompt, completion = self.ticket.prompt_tokens, len(decoded.tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "forwards": decoded.forwards,
        }


class EventStream(Response):
    """Server-sent events; ``around`` is open as long as they are sent."""

    def __init__(
        self, pieces: AsyncIterator[Mapping[str, Any]], around: Callable[[Any], Any]
    ) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        self.events, self.around = pieces, around

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def write(data: str, more: bool = True) -> None:
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with self.around(receive):
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            try:
                async for piece in self.events:
                    await write(json.dumps(piece, ensure_ascii=False, separators=(",", ":")))
            except RefusedError as refused:
                await write(json.dumps(refused.body()))
            except GoneError:
                return
            await write("[DONE]", more=False)
