"""The decoders under the clock: each continues all prompts of a workload and says what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedModel

from mars.decoding.block_cache import room
from mars.decoding.cache import CachedModel
from mars.decoding.cursor import Engine
from mars.decoding.methods import METHODS, TIMED, Timed, engines, timed_batch_decoders
from mars.decoding.requests import Decoded, Request, Times
from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_text
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
    def full_name(self) -> str:
        """Among all that is measured together, e.g. ``batch=4 cursor tau=0.95``."""
        return f"batch={self.batch} {self.name}"

    @property
    def lossless(self) -> bool:
        """Whether the output must be that of greedy AR decoding."""
        return self.tau in (None, 1.0) or TIMED[self.method].lossless


@dataclass(frozen=True)
class Workload:
    """What is decoded, the same for every method.

    With ``simulated_acceptance`` so many tokens are accepted per forward, whatever the model says
    (see :mod:`mars.speed.simulated`); None decodes by its confidence.
    """

    model: PreTrainedModel
    prompts: list[list[int]]  # token ids
    block_size: int
    max_new_tokens: int
    eos: frozenset[int]
    mask_token_id: int | None
    simulated_acceptance: float | None = None
    label: str = ""  # what the model is called
    identity: Mapping[str, Any] = field(default_factory=dict)  # what tells it from others
    caches: WeakValueDictionary[tuple[int, int], CachedModel] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    @property
    def max_length(self) -> int:
        """Most tokens that a sequence may come to."""
        return max(map(len, self.prompts)) + self.max_new_tokens

    def engine(self, slots: int) -> Engine:
        """The cursor engine for these prompts."""
        return Engine(
            self.model,
            block_size=self.block_size,
            mask_token_id=self.mask_token_id,
            eos=self.eos,
            slots=slots,
            max_length=self.max_length,
        )

    def cached(self, slots: int, cache_block: int = 0) -> CachedModel:
        """One cache for all decoders of so many slots, of which one runs at a time.

        It is the same for every ``cache_block`` up to ``max_new_tokens``.
        """
        beyond = room(self.block_size, max(cache_block, self.max_new_tokens))
        place = slots, self.max_length + beyond
        cached = self.caches.get(place) or CachedModel(self.model, *place, self.mask_token_id)
        self.caches[place] = cached
        return cached

    def spec(self, repeats: int) -> dict[str, Any]:
        """What its numbers depend on, apart from the condition, the code and the versions."""
        return {
            **self.identity,
            "prompts": sha256_text(canonical_json(self.prompts)),
            "block_size": self.block_size,
            "max_new_tokens": self.max_new_tokens,
            "eos": sorted(self.eos),
            "simulated_acceptance": self.simulated_acceptance,
            "repeats": repeats,
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True)
class Pass:
    """One pass over the workload: what was decoded, and the seconds of wall clock it took.

    ``prefill_seconds`` is the prompts' share, 0 where it was not timed apart.
    """

    done: list[Decoded]
    seconds: float
    prefill_seconds: float = 0.0

    @property
    def tokens(self) -> list[list[int]]:
        """The continuation of each prompt, up to and including EOS (docs/differences.md, A2)."""
        return [one.tokens for one in self.done]

    @property
    def forwards(self) -> int:
        """Forwards of all sequences, those of the prompts included (docs/differences.md, A3)."""
        return sum(one.forwards for one in self.done)

    @property
    def prefilled(self) -> int:
        """Tokens gained in the prompts' forwards."""
        return sum(one.accepted[0] for one in self.done) if self.prefill_seconds else 0

    @property
    def decode_seconds(self) -> float:
        return self.seconds - self.prefill_seconds

    @property
    def count(self) -> int:
        """Tokens generated."""
        return sum(map(len, self.tokens))

    @property
    def tokens_per_second(self) -> float:
        """The prompts' time included."""
        return self.count / self.seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens per second after the prompts' forwards."""
        return (self.count - self.prefilled) / self.decode_seconds if self.decode_seconds else 0.0


def runner(workload: Workload, condition: Condition) -> Callable[[], Pass]:
    """A function that decodes the whole workload once under this condition.

    Raises:
        UserError: unknown method.
        Skip: the condition cannot be measured with this model on this machine.
    """
    timed = timed_named(condition.method)
    method = METHODS[timed.method]
    options = method.arguments(workload.block_size, workload.eos, workload.mask_token_id)
    options |= timed.options
    simulated = workload.simulated_acceptance is not None and method.has_tau
    if simulated and (timed.options or timed.method != "cursor"):
        raise Skip("acceptance can be simulated in the engine only")
    if timed.static and workload.model.device.type != "cuda":
        raise Skip("no GPU: a static cache is compiled on GPUs only")
    if condition.cache_block is not None:
        options["cache_block"] = condition.cache_block
    tau, budget = method.tau(condition.tau), workload.max_new_tokens
    requests = [Request(prompt, tau, budget) for prompt in workload.prompts]
    if timed.method not in engines():
        return _batches(workload.model, timed, requests, condition.batch, options)
    kind: Any = engines()[timed.method]
    if simulated:
        kind, options["mean"] = SimulatedEngine, workload.simulated_acceptance
    # Built once, as a server is.
    options["cached"] = workload.cached(condition.batch, condition.cache_block or 0)
    engine = kind(workload.model, slots=condition.batch, max_length=workload.max_length, **options)

    def run() -> Pass:
        engine.times = Times()
        with stopwatch(workload.model) as seconds:
            done = engine.answer(requests)
        return Pass(done, seconds(), engine.times.prefill_seconds)

    return run


def timed_named(name: str) -> Timed:
    """The timed method of this name; a UserError where there is none."""
    if name not in TIMED:
        raise UserError(f"Unknown method {name!r}: choose from {', '.join(TIMED)}.")
    return TIMED[name]


def _batches(
    model: PreTrainedModel,
    timed: Timed,
    requests: list[Request],
    size: int,
    options: dict[str, Any],
) -> Callable[[], Pass]:
    """Batch after batch, each as long as its longest sequence."""
    decode_batch = timed_batch_decoders()[timed.method]
    if timed.static:
        options["static_length"] = max(len(request.prompt) for request in requests)

    def decode(requests: list[Request]) -> list[Decoded]:
        starts = range(0, len(requests), size)
        batches = [requests[start : start + size] for start in starts]
        return [one for batch in batches for one in decode_batch(model, batch, **options)]

    def run() -> Pass:
        with stopwatch(model) as seconds:
            done = decode(requests)
        if not timed.prefill_apart:
            return Pass(done, seconds())
        with stopwatch(model) as prefill_seconds:
            decode([replace(request, max_new_tokens=1) for request in requests])
        return Pass(done, seconds(), prefill_seconds())

    return run


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
