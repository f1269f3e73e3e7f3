"""The registry of decoding methods: what each is called and takes, and how it is timed.

The configuration, :func:`mars.decoding.decode`, the evaluation, the measurements of speed, Table 5
and the command line read it. A new method is a module, its entries here, and a test. The code
behind the methods is imported when something is decoded; those who read names do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from mars.errors import UserError

if TYPE_CHECKING:
    from mars.decoding.block_cache import BlockCacheDecoder
    from mars.decoding.cursor import Engine
    from mars.decoding.requests import Decoded

    BatchDecoder = Callable[..., list[Decoded]]
    """``(model, requests, *, eos, mask_token_id, block_size, **options)``: one batch, decoded."""


@dataclass(frozen=True)
class Method:
    """One way to decode.

    Without tau the output must be that of greedy AR decoding.
    """

    name: str  # as in `mars.decoding.decode`, in settings and in records
    options: frozenset[str] = frozenset()  # beside the arguments that all methods have
    has_tau: bool = True  # whether tau decides what is accepted; the model then needs a [MASK]
    one_token: bool = False  # whether it decodes one token per forward, whatever the block size
    streams: bool = False  # whether it serves requests as they come, step by step
    in_settings: bool = False  # whether a setting names it, or it follows from what a model is

    def tau(self, threshold: float | None) -> float | None:
        """The threshold of its requests; None is one-token mode."""
        if self.has_tau or self.one_token:
            return None if self.one_token else threshold
        return 0.0  # without meaning, but not one-token mode

    def arguments(
        self, block_size: int, eos: frozenset[int], mask_token_id: int | None
    ) -> dict[str, Any]:
        """The arguments that its engine or batch function always takes."""
        shared = {"eos": eos, "mask_token_id": mask_token_id}
        return shared if self.one_token else {**shared, "block_size": block_size}


RULE = frozenset({"metric", "strict"})
EXTENSIONS = frozenset({"lossless", "extra_mask"})
ENGINE = frozenset({"memory_limit", "compiled"})
BLOCK_CACHE = RULE | ENGINE | {"cache_block", "authors_window"}

METHODS = {
    method.name: method
    for method in (
        # The un-cached window, one sequence at a time: the ground truth.
        Method("window", options=RULE | EXTENSIONS),
        Method("cursor", options=RULE | EXTENSIONS | ENGINE, streams=True),
        Method("autoregressive", options=ENGINE, has_tau=False, one_token=True, streams=True),
        # The training-free baseline of Table 9; B - 1 guesses per forward.
        Method("jacobi", options=ENGINE, has_tau=False, in_settings=True, streams=True),
        # The paper's own cache.
        Method("block_cache", options=BLOCK_CACHE, in_settings=True),
        # Of the baseline trained this way; the name is that of the training.
        Method("block_diffusion", options=frozenset({"memory_limit"})),
        # `generate` of transformers, the baseline everybody has.
        Method(
            "transformers",
            options=frozenset({"repetition_penalty"}),
            has_tau=False,
            one_token=True,
            in_settings=True,
        ),
    )
}
SETTING_METHODS = tuple(name for name, method in METHODS.items() if method.in_settings)
STREAMING_METHODS = tuple(name for name, method in METHODS.items() if method.streams)


@dataclass(frozen=True)
class Timed:
    """One method as it is timed, which is one row of Table 5."""

    name: str  # in `speed.wall_clock.methods`, on the command line and in records
    method: str  # of METHODS
    table5_row: str
    in_paper: bool = False  # whether the paper has the row; the others are labelled as beyond it
    options: Mapping[str, Any] = field(default_factory=dict)  # fixed options of the method
    baseline: bool = False  # whether it is always timed, because speed-ups are over it
    prefill_apart: bool = False  # whether its prefill is timed by a pass that ends after one token
    static: bool = False  # whether its batches have one length and a compiled static cache; GPUs

    @property
    def has_tau(self) -> bool:
        return METHODS[self.method].has_tau

    @property
    def has_cache_block(self) -> bool:
        return "cache_block" in METHODS[self.method].options

    @property
    def lossless(self) -> bool:
        """Whether its output must be that of greedy AR decoding at every tau."""
        return not self.has_tau or bool(self.options.get("lossless"))


# As everybody calls it: without a [MASK] token.
PLAIN = {"mask_token_id": None}
GENERATE: dict[str, Any] = {"method": "transformers", "options": PLAIN, "prefill_apart": True}
STATIC_ROW = "AR, generate of transformers, static cache, compiled"
AUTHORS_ROW = "MARS + block cache, the authors' window (A5)"
AUTHORS, LOSSLESS = {"authors_window": True}, {"lossless": True}
TIMED = {
    timed.name: timed
    for timed in (  # in the order of Table 5
        Timed("autoregressive", "autoregressive", "AR (KV cache)", in_paper=True, baseline=True),
        Timed("hf", table5_row="AR, generate of transformers", baseline=True, **GENERATE),
        Timed("hf-static", table5_row=STATIC_ROW, static=True, **GENERATE),
        Timed("window", "window", "MARS (no cache)", in_paper=True),
        Timed("block_cache", "block_cache", "MARS + block cache", in_paper=True),
        Timed("block_cache-authors", "block_cache", AUTHORS_ROW, options=AUTHORS),
        Timed("cursor", "cursor", "MARS + cursor cache"),
        Timed("cursor-lossless", "cursor", "MARS + cursor cache, lossless", options=LOSSLESS),
    )
}
BASELINES = tuple(name for name, timed in TIMED.items() if timed.baseline)
COMPARED_METHODS = tuple(name for name, timed in TIMED.items() if not timed.baseline)


def default_method(block_size: int) -> str:
    """How a model decodes if neither its training nor a setting says so."""
    return "cursor" if block_size > 1 else "autoregressive"


def method_named(name: str, options: Mapping[str, Any]) -> Method:
    """The method of this name, which takes these options.

    Raises:
        UserError: no such method, or an option that it does not take.
    """
    if name not in METHODS:
        raise UserError(f"Unknown decoding method {name!r}: choose one of {', '.join(METHODS)}.")
    unknown = ", ".join(sorted(options.keys() - METHODS[name].options))
    if unknown:
        known = ", ".join(sorted(METHODS[name].options))
        raise UserError(f"{unknown}: not options of the method {name!r}, which takes {known}.")
    return METHODS[name]


@cache
def engines() -> dict[str, type[Engine] | type[BlockCacheDecoder]]:
    """The methods that are built once, with their cache, and then answer any number of requests.

    Each takes ``(model, *, slots, max_length, **options)`` and has ``answer`` and ``times``.
    """
    from mars.decoding.block_cache import BlockCacheDecoder

    return {**streaming_engines(), "block_cache": BlockCacheDecoder}


@cache
def streaming_engines() -> dict[str, type[Engine]]:
    """Those among them that serve requests as they come."""
    from mars.decoding.cursor import Engine
    from mars.decoding.jacobi import JacobiEngine

    return {"cursor": Engine, "autoregressive": Engine, "jacobi": JacobiEngine}


@cache
def batch_decoders() -> dict[str, BatchDecoder]:
    """The others, which take a batch of requests through to the end."""
    from mars.decoding.block_diffusion import decode_block_diffusion
    from mars.decoding.transformers_generate import decode_transformers
    from mars.decoding.window import decode_window

    return {
        "window": decode_window,
        "block_diffusion": decode_block_diffusion,
        "transformers": decode_transformers,
    }


@cache
def timed_batch_decoders() -> dict[str, BatchDecoder]:
    """What decodes a batch under the clock."""
    from mars.decoding.window import decode_window_batch

    return {**batch_decoders(), "window": decode_window_batch}
