"""A server with OpenAI's API that continues prompts: asked patiently, its answers kept on disk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from tqdm import tqdm

from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_text, write_jsonl

if TYPE_CHECKING:
    from mars.config.experiment import Endpoint

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds between the attempts of one request."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""
REFUSED = frozenset({400, 422})
TIMEOUT = httpx2.Timeout(600.0, connect=10.0)  # an answer may wait for its turn

EXTRAS: dict[str, Any] = {"return_token_ids": True, "repetition_penalty": 1.0}
"""Beyond OpenAI's API, as vLLM knows it: the tokens themselves, and no penalty even where the
checkpoint's generation config has one, which vLLM would otherwise apply (docs/differences.md, A1).
A server that refuses them is asked without."""
MOST_STOPS = 4
"""Stop strings of a request in OpenAI's API and vLLM's. Where tokens come back, the others are
found in these; a server that gives text alone is asked to stop at all, or the count would be wrong.
"""


@dataclass(frozen=True)
class Reply:
    """The server's continuation of one prompt."""

    text: str
    tokens: int  # as the server counts them
    finish: str  # eos, stop (a stop string; or either, where the server does not tell) or length
    token_ids: list[int] | None  # None where the server does not give them
    url: str  # of the server that answered


class Server:
    """One model of a server.

    Args:
        endpoint: where the server stands, and how it may be asked.
        model: what the server calls the model.
        work: folder for the answers received; None: they are not kept.

    Raises:
        UserError: the key is not set, or the server is away, refuses the key, or has no such model.
    """

    def __init__(self, endpoint: Endpoint, model: str, work: Path | None = None) -> None:
        self.url, self.model = endpoint.url.rstrip("/"), model
        self.concurrency = endpoint.concurrency
        self.extras = EXTRAS
        self._key_name, self._key = endpoint.api_key_env, _api_key(endpoint.api_key_env)
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=TIMEOUT,
            limits=httpx2.Limits(max_connections=self.concurrency),
        )
        self._stopped = threading.Event()
        self._kept = KeptReplies(work / "answers.jsonl" if work else None)
        self.entry = self._find_model()

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        stops: Sequence[Sequence[str]],
        max_tokens: int,
        *,
        keep: bool = True,
    ) -> list[Reply]:
        """Continue token ids greedily, in the order given, until EOS, a stop string or the budget.

        With ``keep`` nothing is asked that was answered before, be it to an earlier process.

        Raises:
            UserError: the server is away for too long, or refuses a request.
        """
        with (
            ThreadPoolExecutor(self.concurrency) as pool,
            tqdm(total=len(prompts), desc="asking", unit="seq") as bar,
        ):
            asked = [
                pool.submit(self._answer, list(prompt), list(stop), max_tokens, keep)
                for prompt, stop in zip(prompts, stops, strict=True)
            ]
            try:
                for one in as_completed(asked):
                    one.result()
                    bar.update()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [one.result() for one in asked]

    def _answer(self, prompt: list[int], stop: list[str], max_tokens: int, keep: bool) -> Reply:
        key = sha256_text(canonical_json([self.model, prompt, stop, max_tokens]))
        if keep and (known := self._kept.get(key)) is not None:
            return known
        question = {
            **{"model": self.model, "prompt": prompt, "max_tokens": max_tokens},
            **{"temperature": 0, **({"stop": stop} if stop else {})},
        }
        reply = self._reply(self._complete(question), bool(stop), max_tokens)
        if keep:
            self._kept.add(key, reply)
        return reply

    def _complete(self, question: Mapping[str, Any]) -> Any:
        extras = self.extras  # another thread may learn meanwhile that they are refused
        asked = {**question, **extras}
        if extras and "stop" in asked:
            asked["stop"] = asked["stop"][:MOST_STOPS]
        response = self._send("POST", "completions", asked)
        if response.status_code in REFUSED and extras:
            plain = self._send("POST", "completions", question)
            if plain.status_code not in REFUSED:
                self.extras, response = {}, plain
        return self._content(response)

    def _reply(self, completion: Any, stoppable: bool, max_tokens: int) -> Reply:
        """What is in a completion; UserError if it is none, or no whole answer."""
        try:
            choice, tokens = completion["choices"][0], completion["usage"]["completion_tokens"]
            text, reason = choice["text"], choice["finish_reason"]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{self.url} gave no completion with text and usage.") from error
        if reason not in ("stop", "length"):
            raise UserError(f"{self.url} ended an answer for a reason of its own ({reason!r}).")
        if reason == "length" and tokens < max_tokens:
            raise UserError(
                f"{self.url} ended an answer after {tokens} of {max_tokens} tokens; start it with "
                "a longer context (vLLM: --max-model-len)."
            )
        if reason == "stop":
            by_string = isinstance(choice.get("stop_reason"), str)
            told = "stop_reason" in choice or not stoppable
            reason = "eos" if told and not by_string else "stop"
        return Reply(text, max(1, tokens), reason, choice.get("token_ids"), self.url)

    def _find_model(self) -> dict[str, Any]:
        """What the server says of the model in its list of models."""
        try:
            models = {one["id"]: one for one in self._content(self._send("GET", "models"))["data"]}
        except (KeyError, TypeError) as error:
            raise UserError(f"{self.url}/models is no list of models of OpenAI's API.") from error
        if self.model not in models:
            raise UserError(
                f"{self.url} has no model {self.model!r}, it has {', '.join(models) or 'none'}; "
                "correct `model` in `evaluation.endpoint`, or start the server with that one."
            )
        return models[self.model]

    def _send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """Ask until there is an answer that another attempt would not change."""
        for attempts, wait in enumerate((*WAITS, None), 1):
            try:
                response = self._client.request(method, f"{self.url}/{path}", json=body)
                if response.status_code not in BUSY:
                    return response
                problem = f"status {response.status_code}, {self._message(response)}"
                wait = wait and max(wait, _retry_after(response))
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}, {error}"
            if wait is None or self._stopped.wait(wait):
                tried = f"{attempts} attempt{'s' if attempts > 1 else ''}"
                break
        raise UserError(
            f"{self.url} does not answer after {tried} ({problem}); what it has answered is kept: "
            "start it, or correct `evaluation.endpoint`, and run again."
        )

    def _content(self, response: httpx2.Response) -> Any:
        """The JSON of a response, or its refusal as a UserError."""
        status = response.status_code
        if status in (401, 403):
            how = f"the key in {self._key_name}" if self._key else "requests without a key"
            raise UserError(
                f"{self.url} refuses {how} (status {status}); put its key into a variable of the "
                "environment, and the variable's name into `api_key_env`."
            )
        if status == 404:
            raise UserError(
                f"{response.url} does not exist; `url` of `evaluation.endpoint` mostly ends in /v1."
            )
        if not response.is_success:
            said = self._message(response)
            raise UserError(f"{self.url} refuses a request (status {status}): {said}.")
        try:
            return response.json()
        except ValueError as error:
            raise UserError(f"{response.url} gave no JSON, as OpenAI's API does.") from error

    def _message(self, response: httpx2.Response) -> str:
        """What a server says is wrong, in a line that does not hold the key."""
        try:
            content = response.json()
            error = content.get("error", content)
            said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            said = response.text
        line = " ".join(str(said).split())[:300].rstrip(".")
        return line.replace(self._key, "<key>") if self._key else line


class KeptReplies:
    """Replies by key, in a file to which each is added as it comes; None: in memory alone."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._lock = file, threading.Lock()
        self._replies = dict(_whole_lines(file)) if file and file.is_file() else {}
        if file and self._replies:  # the last line may have been cut off by a kill
            write_jsonl(file, ([key, asdict(reply)] for key, reply in self._replies.items()))

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._replies[key] = reply
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open(self._file, "a") as stream:
                    stream.write(json.dumps([key, asdict(reply)]) + "\n")


def _whole_lines(file: Path) -> list[tuple[str, Reply]]:
    found = []
    for line in file.read_text().split("\n"):
        try:
            key, reply = json.loads(line)
        except ValueError:
            continue
        found.append((key, Reply(**reply)))
    return found


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment has no {variable}, which `api_key_env` names; export it with the "
            "server's API key."
        )
    return key


def _retry_after(response: httpx2.Response) -> float:
    """Seconds that a busy server asks to wait, at most the longest of :data:`WAITS`."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), WAITS[-1]) if asked.isdecimal() else 0.0
