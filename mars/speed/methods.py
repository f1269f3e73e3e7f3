"""The decoders under the clock: each continues all prompts of a workload and says what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import torch
from transformers import PreTrainedModel

from mars.decoding.methods import ENGINES, METHODS, TIMED, TIMED_BATCHES, Method, Timed
from mars.decoding.requests import Decoded, Request, Times
from mars.errors import UserError
from mars.speed.simulated import SimulatedEngine


class Skip(Exception):  # noqa: N818 - not an error
    """A condition that cannot be measured here, and why."""


@dataclass(frozen=True)
class Condition:
    """What one measurement is of: a key of :data:`mars.decoding.methods.TIMED`, and its settings.

    ``tau`` and ``cache_block`` are None where the method has none.
    """

    method: str
    batch: int
    tau: float | None = None
    cache_block: int | None = None

    @property
    def name(self) -> str:
        """Within a batch size, e.g. ``block_cache tau=0.95 cache_block=16``."""
        settings = {"tau": self.tau, "cache_block": self.cache_block}
        parts = [f"{key}={value}" for key, value in settings.items() if value is not None]
        return " ".join([self.method, *parts])

    @property
    def file(self) -> str:
        """Name of its record."""
        return f"batch-{self.batch:03d}/{self.name.replace(' ', '_')}.json"

    def as_spec(self) -> dict[str, Any]:
        """Its part of the spec of its record."""
        return {"cell": asdict(self)}

    @property
    def lossless(self) -> bool:
        """Whether the output must be that of greedy AR decoding."""
        return self.tau in (None, 1.0) or TIMED[self.method].lossless


@dataclass(frozen=True)
class Workload:
    """What is decoded, the same for every method.

    Attributes:
        prompts: token ids, in the order in which all methods take them.
        simulated_acceptance: tokens per forward to be accepted whatever the model says (see
            :mod:`mars.speed.simulated`); None decodes by the model's confidence.
    """

    model: PreTrainedModel
    prompts: list[list[int]]
    block_size: int
    max_new_tokens: int
    eos: frozenset[int]
    mask_token_id: int | None
    simulated_acceptance: float | None = None


@dataclass(frozen=True)
class Pass:
    """One pass over the workload.

    Attributes:
        tokens: the continuation of each prompt, up to and including EOS (docs/differences.md, A2).
        forwards: forwards that each sequence took part in, the prompt's included (A3).
        prefilled: tokens gained in the prompts' forwards, over all sequences.
        seconds: wall clock of everything; the prompts' share, and the rest.
    """

    tokens: list[list[int]]
    forwards: list[int]
    prefilled: int
    seconds: float
    prefill_seconds: float

    @property
    def decode_seconds(self) -> float:
        return self.seconds - self.prefill_seconds

    @property
    def count(self) -> int:
        """Tokens generated."""
        return sum(map(len, self.tokens))

    @property
    def throughput(self) -> float:
        """Tokens per second, the prompts' time included."""
        return self.count / self.seconds

    @property
    def decode_throughput(self) -> float:
        """Tokens per second after the prompts' forwards."""
        return (self.count - self.prefilled) / self.decode_seconds if self.decode_seconds else 0.0


def runner(workload: Workload, condition: Condition) -> Callable[[], Pass]:
    """A function that decodes the whole workload once under this condition.

    Raises:
        UserError: unknown method.
        Skip: the condition cannot be measured with this model on this machine.
    """
    if condition.method not in TIMED:
        raise UserError(f"Unknown method {condition.method!r}: choose from {', '.join(TIMED)}.")
    timed = TIMED[condition.method]
    method = METHODS[timed.method]
    if (
        workload.simulated_acceptance is not None
        and method.has_tau
        and (timed.options or timed.method not in ENGINES)
    ):
        raise Skip("acceptance can be simulated in the engine only")
    if timed.static and workload.model.device.type != "cuda":
        raise Skip("no GPU: a static cache is compiled on GPUs only")
    requests = [
        Request(prompt, method.tau(condition.tau), workload.max_new_tokens)
        for prompt in workload.prompts
    ]
    options = method.arguments(workload.block_size, workload.eos, workload.mask_token_id)
    options |= timed.options
    if condition.cache_block is not None:
        options["cache_block"] = condition.cache_block
    if timed.method in ENGINES:
        return _engine(workload, method, requests, condition.batch, options)
    return _batches(workload, timed, requests, condition.batch, options)


def _engine(
    workload: Workload, method: Method, requests: list[Request], slots: int, options: dict[str, Any]
) -> Callable[[], Pass]:
    """The engine with all requests in its queue; built once, as a server is."""
    kind: Any = ENGINES[method.name]()
    if workload.simulated_acceptance is not None and method.has_tau:
        kind, options = SimulatedEngine, {**options, "mean": workload.simulated_acceptance}
    longest = max(map(len, workload.prompts)) + workload.max_new_tokens
    engine = kind(workload.model, slots=slots, max_length=longest, **options)

    def run() -> Pass:
        engine.times = Times()
        with stopwatch(workload.model) as seconds:
            identities = [engine.submit(request) for request in requests]
            engine.run()
        done = [engine.results.pop(identity) for identity in identities]
        return pass_of(done, seconds(), engine.times.prefill_seconds)

    return run


def _batches(
    workload: Workload, timed: Timed, requests: list[Request], size: int, options: dict[str, Any]
) -> Callable[[], Pass]:
    """Batch after batch, each as long as its longest sequence."""
    method = METHODS[timed.method]
    decode_batch = TIMED_BATCHES[timed.method]()
    if timed.static:
        options["static_length"] = max(map(len, workload.prompts))

    def decode(requests: list[Request], **more: Any) -> list[Decoded]:
        starts = range(0, len(requests), size)
        batches = [requests[start : start + size] for start in starts]
        model = workload.model
        return [one for batch in batches for one in decode_batch(model, batch, **options, **more)]

    def run() -> Pass:
        times = Times()
        with stopwatch(workload.model) as seconds:
            done = decode(requests, **({"times": times} if "times" in method.options else {}))
        if timed.prefill_apart:
            with stopwatch(workload.model) as prefill_seconds:
                decode([replace(request, max_new_tokens=1) for request in requests])
            times.prefill_seconds = prefill_seconds()
        return pass_of(done, seconds(), times.prefill_seconds)

    return run


def pass_of(done: list[Decoded], seconds: float, prefill_seconds: float) -> Pass:
    """A pass as its decoded sequences tell it; a prefill of 0 seconds was not timed apart."""
    prefilled = sum(one.accepted[0] for one in done) if prefill_seconds else 0
    return Pass(
        [one.tokens for one in done],
        [one.forwards for one in done],
        prefilled,
        seconds,
        prefill_seconds,
    )


@contextmanager
def stopwatch(model: PreTrainedModel) -> Iterator[Callable[[], float]]:
    """Seconds spent inside, read afterwards; a GPU's work is waited for at both ends."""

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return perf_counter()

    start, end = now(), 0.0
    yield lambda: end - start
    end = now()
