"""What `mars serve` costs: clients that ask one question after the other, beside the bare engine.

    python tools/serving_load.py CHECKPOINT [--clients 16] [--requests 512] [--threads 1]

The questions are the project's word problems. In every round

* the bare engine answers them in this process, as many at a time as there are clients;
* it does so with all of them in its queue from the start, which lets it fill several slots at once;
* the clients, threads of this process with a connection each, ask `mars serve` for whole answers;
* they ask for streams.

Engine and server have the same number of slots and threads. For each of the four: the median of
tokens per second, its share of the first (median of the rounds, least and most), and the engine's
processor time as a multiple of the first, which says less but is much the same on a busy machine.
Answers are compared with the engine's.

Needs what `mars serve` needs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from mars.data.minibench.miniature import generator
from mars.data.minibench.word_problems import WordProblems
from mars.data.tokenizer import load_tokenizer
from mars.decoding.cache import attention_of
from mars.decoding.cursor import Engine
from mars.decoding.generate import chat_ids
from mars.decoding.requests import Decoded, Request
from mars.serving.engine_process import Settings, build_worker
from mars.serving.text import text_with

NAME = "served"
AT_A_TIME, QUEUED, WHOLE, STREAMED = (
    "bare engine, as many at a time",
    "bare engine, all in its queue",
    "mars serve, whole answers",
    "mars serve, streams",
)


def questions(count: int) -> list[list[dict[str, str]]]:
    """Conversations that end with the user's turn."""
    rng = generator(0, "speed")
    problems = (WordProblems().example(rng, "main") for _ in range(count))
    return [[problem.messages[-2]] for problem in problems]


@contextmanager
def served(checkpoint: Path, options: list[str]) -> Iterator[tuple[int, psutil.Process]]:
    """The port of a server and the process of its engine; both then end."""
    command = [sys.executable, "-m", "mars", "serve", str(checkpoint), "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        said = server.stdout.readline().decode()
        found = re.search(r":(\d+)/v1", said)
        assert found, said
        (engine,) = psutil.Process(server.pid).children()
        yield int(found[1]), engine
    finally:
        server.terminate()
        assert server.wait() == 0, "the server did not end as it should"


def ask(connection: HTTPConnection, body: dict[str, Any]) -> tuple[str, int]:
    """The text of an answer and its tokens."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    if not body["stream"]:
        done = json.load(response)
        return done["choices"][0]["message"]["content"], done["usage"]["completion_tokens"]
    text = ""
    for line in response:
        if line.startswith(b"data: {"):
            piece = json.loads(line[6:])
            for choice in piece["choices"]:
                text += choice["delta"].get("content", "")
    return text, piece["usage"]["completion_tokens"]


@dataclass
class Round:
    """How long it took to answer everything."""

    seconds: float
    processor_seconds: float  # of the engine


@contextmanager
def timed(engine: psutil.Process) -> Iterator[Round]:
    """Times what is done within; the result is complete afterwards."""

    def processor() -> float:
        return sum(engine.cpu_times()[:2])

    found, start, before = Round(0, 0), time.perf_counter(), processor()
    yield found
    found.seconds = time.perf_counter() - start
    found.processor_seconds = processor() - before


def bare(engine: Engine, requests: list[Request], at_a_time: int) -> list[Decoded]:
    """What the engine answers."""
    waiting = deque(requests)
    order = [engine.submit(waiting.popleft()) for _ in range(min(at_a_time, len(waiting)))]
    with attention_of(engine.cached.model):
        while engine.active or engine.queue:
            engine.step()
            for _ in engine.ended:
                if waiting:
                    order.append(engine.submit(waiting.popleft()))
    return [engine.results.pop(identity) for identity in order]


def load(port: int, bodies: list[dict[str, Any]], clients: int) -> list[tuple[str, int]]:
    """What the server answers."""
    answers: list[tuple[str, int]] = [("", 0)] * len(bodies)
    numbers = iter(range(len(bodies)))
    lock = threading.Lock()

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            answers[number] = ask(connection, bodies[number])

    with ThreadPoolExecutor(clients) as pool:
        for asking in [pool.submit(client) for _ in range(clients)]:
            asking.result()
    return answers


def measure(arguments: argparse.Namespace) -> tuple[list[dict[str, Round]], list[Decoded]]:
    """Every way in each round, and the engine's answers."""
    tokenizer = load_tokenizer(arguments.checkpoint)
    text = text_with(tokenizer)
    settings = Settings(str(arguments.checkpoint), slots=arguments.slots, threads=arguments.threads)
    engine = build_worker(settings, lambda news: None).engine
    conversations = questions(arguments.requests)
    asked = {"max_tokens": arguments.max_tokens, "tau": arguments.tau}
    bodies = [{"model": NAME, **asked, "messages": messages} for messages in conversations]
    prompts = [chat_ids(tokenizer, messages) for messages in conversations]
    requests = [Request(prompt, arguments.tau, arguments.max_tokens) for prompt in prompts]
    options = ["--slots", str(arguments.slots), "--threads", str(arguments.threads)]
    rounds: list[dict[str, Round]] = []
    with served(arguments.checkpoint, [*options, "--name", NAME]) as (port, process):
        for _ in range(arguments.rounds + 1):
            found = {}
            for name, at_a_time in ((AT_A_TIME, arguments.clients), (QUEUED, len(requests))):
                with timed(psutil.Process()) as found[name]:
                    done = bare(engine, requests, at_a_time)
            expected = [(text(one.tokens), len(one.tokens)) for one in done]
            for name, wish in (
                (WHOLE, {"stream": False}),
                (STREAMED, {"stream": True, "stream_options": {"include_usage": True}}),
            ):
                sent = [body | wish for body in bodies]
                with timed(process) as found[name]:
                    answers = load(port, sent, arguments.clients)
                assert answers == expected, "the server answers otherwise than the engine"
            rounds.append(found)
    return rounds[1:], done  # the first round warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--tau", type=float, default=0.95)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds, done = measure(arguments)
    tokens, forwards = sum(len(one.tokens) for one in done), sum(one.forwards for one in done)
    print(f"{tokens / forwards:.2f} tokens per forward; all answers equal the engine's")
    for name in (AT_A_TIME, QUEUED, WHOLE, STREAMED):
        rate = statistics.median(tokens / one[name].seconds for one in rounds)
        shares = [one[AT_A_TIME].seconds / one[name].seconds for one in rounds]
        multiple = statistics.median(
            one[name].processor_seconds / one[AT_A_TIME].processor_seconds for one in rounds
        )
        print(
            f"{name:32} {rate:7.0f} tokens/s, {statistics.median(shares):.2f} "
            f"[{min(shares):.2f}, {max(shares):.2f}], processor time x {multiple:.2f}"
        )


if __name__ == "__main__":
    main()
