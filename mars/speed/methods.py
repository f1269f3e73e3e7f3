"""The decoders under the clock: each continues all prompts of a workload and says what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
from transformers import PreTrainedModel

from mars.decoding import Decoded, Engine, Request
from mars.decoding.block_cache import decode_block_cache
from mars.decoding.requests import Times, finished
from mars.decoding.transformers_generate import left_padded
from mars.decoding.window_batch import decode_window_batch
from mars.errors import UserError
from mars.speed.prescribed import PrescribedEngine

BASELINES = ("hf", "autoregressive")
"""What speed-ups are measured against."""

METHODS = (
    *BASELINES,
    "hf-static",
    "cursor",
    "cursor-lossless",
    "block_cache",
    "block_cache-authors",
    "window",
)


class Skip(Exception):  # noqa: N818 - not an error
    """A cell that cannot be measured here, and why."""


@dataclass(frozen=True)
class Cell:
    """One measurement. ``tau`` and ``cache_block`` are None where the method has none."""

    method: str
    batch: int
    tau: float | None = None
    cache_block: int | None = None

    @property
    def name(self) -> str:
        """The cell among those of its batch size, e.g. ``block_cache tau=0.95 cache_block=16``."""
        settings = {"tau": self.tau, "cache_block": self.cache_block}
        parts = [f"{key}={value}" for key, value in settings.items() if value is not None]
        return " ".join([self.method, *parts])

    @property
    def file(self) -> str:
        """Name of the cell's record."""
        return f"batch-{self.batch:03d}/{self.name.replace(' ', '_')}.json"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def greedy(self) -> bool:
        """Whether the output must be that of greedy AR decoding."""
        return self.tau in (None, 1.0) or self.method == "cursor-lossless"


@dataclass(frozen=True)
class Workload:
    """What is decoded, the same for every method.

    Attributes:
        prompts: token ids, in the order in which all methods take them.
        prescribed: tokens per forward to be accepted whatever the model says; None decodes by
            the model's confidence (see :mod:`mars.speed.prescribed`).
    """

    model: PreTrainedModel
    prompts: list[list[int]]
    block_size: int
    max_new_tokens: int
    eos: frozenset[int]
    mask_token_id: int | None
    prescribed: float | None = None


@dataclass(frozen=True)
class Run:
    """One pass over the workload.

    Attributes:
        tokens: the continuation of each prompt, up to and including EOS (AUDIT A2).
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


def runner(work: Workload, cell: Cell) -> Callable[[], Run]:
    """A function that decodes the whole workload once by the cell's method.

    Raises:
        UserError: unknown method.
        Skip: the cell cannot be measured with this model on this machine.
    """
    if cell.method not in METHODS:
        raise UserError(f"Unknown method {cell.method!r}: choose from {', '.join(METHODS)}.")
    if work.prescribed is not None and cell.method not in (*BASELINES, "hf-static", "cursor"):
        raise Skip("an acceptance pattern can be prescribed to the engine only")
    if cell.method in ("hf", "hf-static"):
        return _transformers(work, cell)
    if cell.method.startswith("block_cache"):
        return _block_cache(work, cell)
    if cell.method == "window":
        return _window(work, cell)
    return _engine(work, cell)


def _engine(work: Workload, cell: Cell) -> Callable[[], Run]:
    """The engine with ``batch`` slots and all prompts in its queue; built once, as a server is."""
    plain = cell.method == "autoregressive"
    options: dict[str, Any] = {
        "block_size": 1 if plain else work.block_size,
        "mask_token_id": work.mask_token_id,
        "eos": work.eos,
        "slots": cell.batch,
        "max_length": max(map(len, work.prompts)) + work.max_new_tokens,
        "verify": cell.method == "cursor-lossless",
    }
    if work.prescribed is None or plain:
        engine = Engine(work.model, **options)
    else:
        engine = PrescribedEngine(work.model, mean=work.prescribed, **options)

    def run() -> Run:
        engine.times = Times()
        with stopwatch(work.model) as seconds:
            requests = _requests(work, cell)
            identities = [engine.submit(request) for request in requests]
            engine.run()
        done = [engine.results.pop(identity) for identity in identities]
        return run_of(done, seconds(), engine.times.prefill_seconds)

    return run


def _block_cache(work: Workload, cell: Cell) -> Callable[[], Run]:
    """The paper's cache, batch after batch."""
    mask = work.mask_token_id
    assert mask is not None  # a block size above 1 has been checked to have one

    def run() -> Run:
        times = Times()
        with stopwatch(work.model) as seconds:
            requests = _requests(work, cell)
            done = [
                decoded
                for batch in _batches(requests, cell.batch)
                for decoded in decode_block_cache(
                    work.model,
                    batch,
                    block_size=work.block_size,
                    cache_block=cell.cache_block or 1,
                    eos=work.eos,
                    mask_token_id=mask,
                    authors_window=cell.method == "block_cache-authors",
                    times=times,
                )
            ]
        return run_of(done, seconds(), times.prefill_seconds)

    return run


def _window(work: Workload, cell: Cell) -> Callable[[], Run]:
    """No cache: every forward sees the whole prefix."""

    def run() -> Run:
        with stopwatch(work.model) as seconds:
            done = [
                decoded
                for batch in _batches(_requests(work, cell), cell.batch)
                for decoded in decode_window_batch(
                    work.model,
                    batch,
                    block_size=work.block_size,
                    eos=work.eos,
                    mask_token_id=work.mask_token_id,
                )
            ]
        return run_of(done, seconds(), 0.0)

    return run


def _transformers(work: Workload, cell: Cell) -> Callable[[], Run]:
    """``generate`` of transformers, greedy, batch after batch, padded on the left.

    Its prefill is what it takes to generate one token. ``hf-static`` has the static cache, with
    which transformers compiles the model; all its batches have one length, so that it compiles
    once.
    """
    static = cell.method == "hf-static"
    if static and work.model.device.type != "cuda":
        raise Skip("no GPU: a static cache is compiled on GPUs only")
    longest = max(map(len, work.prompts)) if static else 0
    padding = min(work.eos, default=0)
    batches = [left_padded(batch, padding, longest) for batch in _batches(work.prompts, cell.batch)]
    options: dict[str, Any] = {
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "use_cache": True,
        "eos_token_id": sorted(work.eos) or None,
        "pad_token_id": padding,
    }
    if static:
        options["cache_implementation"] = "static"

    decode: Any = work.model.generate

    def generate(new_tokens: int) -> list[list[int]]:
        rows: list[list[int]] = []
        for ids, mask in batches:
            ids, mask = ids.to(work.model.device), mask.to(work.model.device)
            output = decode(ids, attention_mask=mask, max_new_tokens=new_tokens, **options)
            rows += output[:, ids.shape[1] :].tolist()
        return rows

    def run() -> Run:
        with stopwatch(work.model) as seconds:
            rows = generate(work.max_new_tokens)
        with stopwatch(work.model) as prefill_seconds:
            generate(1)
        budget = Request([0], max_new_tokens=work.max_new_tokens)
        tokens = [finished([], row, budget, work.eos)[0] for row in rows]
        return Run(tokens, list(map(len, tokens)), len(tokens), seconds(), prefill_seconds())

    return run


def _requests(work: Workload, cell: Cell) -> list[Request]:
    return [Request(prompt, cell.tau, work.max_new_tokens) for prompt in work.prompts]


def _batches(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))


def run_of(done: list[Decoded], seconds: float, prefill_seconds: float) -> Run:
    """A pass as its decoded sequences tell it; a prefill of 0 seconds was not timed apart."""
    prefilled = sum(one.accepted[0] for one in done) if prefill_seconds else 0
    return Run(
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
