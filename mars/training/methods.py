"""The training methods: how each lays out a document, and how its loss is normalised."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mars.errors import UserError
from mars.training.block_diffusion import SMALLEST_RATE, block_diffusion_stream
from mars.training.dual_stream import Stream, autoregressive_stream, mars_stream, pad_to_block

if TYPE_CHECKING:
    from mars.training.stage import TrainSpec

MEAN_INVERSE_RATE = -math.log(SMALLEST_RATE) / (1 - SMALLEST_RATE)  # mean of 1/t, t uniform

Layout = Callable[[np.ndarray, int, np.random.Generator], Stream]


def layout(spec: TrainSpec, mask_token_id: int | None, eos_token_id: int) -> Layout:
    """The function that turns (document, prompt length, random generator) into a stream.

    ``training.inverse_t_weighting`` weights each document's mask loss by 1/t, t uniform, as the
    authors' code does for MARS although its masking is full. Block diffusion always has these
    weights, which are its objective. The autoregressive methods need no mask token.
    """
    method, block_size = spec.method, spec.block_size
    if method in ("pretrain", "ar_sft"):
        return lambda document, prompt, _: autoregressive_stream(document, prompt)
    if block_size is None or mask_token_id is None:
        raise UserError(f"the method {method!r} needs a `block_size` and a mask token; set both.")

    def lay_out(document: np.ndarray, prompt: int, generator: np.random.Generator) -> Stream:
        if spec.training.eos_to_block:
            document = pad_to_block(document, prompt, block_size, eos_token_id)
        rate = generator.uniform(SMALLEST_RATE, 1)
        blocks: dict[str, Any] = {"block_size": block_size, "mask_token_id": mask_token_id}
        if method == "block_diffusion":
            masked = generator.random(len(document) - prompt) < rate
            return block_diffusion_stream(
                document,
                prompt,
                rate=rate,
                masked=masked,
                right_shift=spec.right_shift,
                **blocks,
            )
        stream = mars_stream(document, prompt, **blocks)
        weighted = spec.training.inverse_t_weighting
        return replace(stream, mask_terms=stream.mask_terms / rate) if weighted else stream

    return lay_out
