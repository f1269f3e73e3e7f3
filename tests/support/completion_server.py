"""A server of OpenAI's completions that answers with our own engine, and can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mars.decoding import decode
from mars.evaluation.stop_strings import StopStrings, holds


class Completions(ThreadingHTTPServer):
    """Serves one model as ``name``.

    Attributes:
        asked: the bodies of all requests for completions, and their headers.
        failing: statuses still to be given, before anything else, by the next requests.
        extras: whether it knows vLLM's extensions; else it refuses a request that has one.
        key: what it wants as API key.
    """

    daemon_threads = True

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.failing: list[int] = []
        self.extras = True
        self.key: str | None = None
        self.one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        stops, eos = body.get("stop", []), self.tokenizer.eos_token_id
        with self.one_at_a_time:
            (answer,) = decode(
                self.model,
                [body["prompt"]],
                method="autoregressive",
                block_size=1,
                threshold=None,
                max_new_tokens=body["max_tokens"],
                eos_token_id=eos,
                mask_token_id=None,
                stop=StopStrings(self.text, stops) if stops else None,
            )
        text = self.text(answer.tokens)
        stopped = bool(stops) and holds(self.text, stops, answer.tokens)
        for string in stops:
            text = text.split(string, 1)[0]
        choice = {
            "text": text,
            "finish_reason": "length" if answer.finish == "length" and not stopped else "stop",
        }
        if self.extras:
            choice["stop_reason"] = "a string" if stopped else None
            choice["token_ids"] = answer.tokens
        return {
            "choices": [choice],
            "usage": {"completion_tokens": len(answer.tokens)},
        }

    def handle_error(self, *_: Any) -> None:
        """A completion that fails breaks its connection off, without a word here."""

    def text(self, tokens: Any) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


class Handler(BaseHTTPRequestHandler):
    server: Completions

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.send(404, {})
        self.headed(lambda: {"data": [{"id": self.server.name, "root": "/models/x"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.asked.append(body)
        if server.failing:
            return self.send(server.failing.pop(0), {"error": {"message": "not now"}})
        if not server.extras and body.keys() & {"return_token_ids", "repetition_penalty"}:
            return self.send(400, {"error": {"message": "unknown argument"}})
        if server.extras and len(body.get("stop", [])) > 4:  # as vLLM does
            return self.send(400, {"error": {"message": "at most 4 items"}})
        self.headed(lambda: server.complete(body))

    def headed(self, answer: Any) -> None:
        server = self.server
        server.headers.append(dict(self.headers))
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            said = f"wrong key {self.headers.get('Authorization')}"
            return self.send(401, {"error": {"message": said}})
        self.send(200, answer())

    def send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(model: Any, tokenizer: Any, name: str = "theirs") -> Iterator[Completions]:
    """A running server."""
    server = Completions(model, tokenizer, name)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
