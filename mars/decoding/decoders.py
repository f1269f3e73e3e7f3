"""The code behind the methods of :mod:`mars.decoding.methods`."""

from __future__ import annotations

from collections.abc import Callable

from mars.decoding.block_cache import decode_block_cache
from mars.decoding.block_diffusion import decode_block_diffusion
from mars.decoding.cursor import Engine
from mars.decoding.jacobi import JacobiEngine
from mars.decoding.requests import Decoded
from mars.decoding.transformers_generate import decode_transformers
from mars.decoding.window import decode_window, decode_window_batch

BatchDecoder = Callable[..., list[Decoded]]
"""``(model, requests, *, eos, mask_token_id, block_size, **options)``: one batch, decoded."""

ENGINES: dict[str, type[Engine]] = {
    "cursor": Engine,
    "autoregressive": Engine,
    "jacobi": JacobiEngine,
}
"""The methods that are engines, which serve requests as they come."""

BATCHES: dict[str, BatchDecoder] = {
    "window": decode_window,
    "block_cache": decode_block_cache,
    "block_diffusion": decode_block_diffusion,
    "transformers": decode_transformers,
}
"""The others, which take a batch of requests through to the end."""

TIMED_BATCHES = {**BATCHES, "window": decode_window_batch}
"""What decodes a batch under the clock."""
