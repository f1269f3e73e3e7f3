"""Decoding of the block-diffusion baseline: one block after the other, by confidence inside it.

The form of arXiv 2503.09573: clean tokens see their block and earlier ones, the block under way
sees them and all of itself. Position j predicts token j+1, so that the last finished block predicts
the first token of the block under way; or, without ``right_shift``, its own token (C1 of
docs/differences.md). The sequences of a batch are in lockstep, each at its own block: every step
forwards a row's last finished block, whose keys and values are final only now, and the block under
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.batch import CachedBatch
from mars.decoding.cache import attention_of, gather_at
from mars.decoding.cursor import PREFILL_TOKENS
from mars.decoding.requests import Decoded, Request
from mars.errors import UserError


@torch.inference_mode()
def decode_block_diffusion(
    model: PreTrainedModel,
    requests: Sequence[Request],
    *,
    block_size: int,
    eos: frozenset[int],
    mask_token_id: int | None,
    right_shift: bool = True,
    memory_limit: int | None = None,
) -> list[Decoded]:
    """Continue one batch of prompts greedily, all together.

    Args:
        requests: at threshold tau every forward fixes the masks whose probability reaches it, and
            at least the most confident one; None: exactly one.
        block_size: B of the training; blocks are counted from the start of the prompt.
        right_shift: as in the training.

    Returns:
        Of the forwards, the prompt's is one with the first block's. ``accepted`` counts tokens
        where the text grows from the left without a gap: 0 in a forward that fixed a token behind
        a mask. Blocks are fixed whole, so no token is an overrun.

    Raises:
        UserError: there is no [MASK], or the cache does not fit.
    """
    if mask_token_id is None:
        raise UserError("Block diffusion needs a mask token, which this checkpoint lacks.")
    rule: dict[str, Any] = {"eos": eos, "mask_token_id": mask_token_id, "metric": "probability"}
    form = block_size, int(right_shift)
    batch = _DiffusionBatch(*form, model, requests, **rule, memory_limit=memory_limit)
    with attention_of(model):
        batch.prefill()
        while batch.going:
            batch.step()
    return batch.decoded()


class _DiffusionBatch(CachedBatch):
    """State of one batch; ``start`` is where each row's block under way begins, [rows].

    A token is predicted ``shift`` positions before its own. The first token of a prompt is known,
    so it does not matter that nothing predicts it.
    """

    def __init__(self, block_size: int, shift: int, *arguments: Any, **rule: Any):
        super().__init__(*arguments, **rule, room=2 * block_size + PREFILL_TOKENS)
        self.block_size, self.shift, self.mask = block_size, shift, rule["mask_token_id"]
        self.start = self.prompt_lengths // block_size * block_size
        self.ends = (self.offsets // block_size + 1) * block_size - 1  # of each token's block

    def prefill(self) -> None:
        """Cache the prompts' full blocks, in pieces of whole blocks."""
        pieces = PREFILL_TOKENS // len(self.rows) // self.block_size
        width = max(1, pieces) * self.block_size
        for begin in range(0, int(self.start.max()), width):
            self._forward(torch.full_like(self.start, begin), width)

    def step(self) -> None:
        """Forward the blocks under way, fix their surest tokens, and begin the next where full."""
        rows = torch.arange(len(self.start), device=self.start.device)[:, None]
        begin = (self.start - self.block_size).clamp(min=0)
        hidden = self._forward(begin, 2 * self.block_size)
        block = self.start[:, None] + self.offsets[: self.block_size]
        predicting = (block - begin[:, None] - self.shift).clamp(min=0)
        logits = self.cached.logits(gather_at(hidden, predicting))
        confidence, best = logits.softmax(-1).max(-1)
        known = self.ids[rows, block]
        confidence = confidence.where(known == self.mask, -1.0)
        surest = confidence.argmax(-1, keepdim=True) == self.offsets[: self.block_size]
        fixed = (known == self.mask) & (surest | (confidence >= self.cutoffs))
        self.ids[rows, block] = best.where(fixed, known)
        ends = self._gains(self.start.tolist(), self.ids[rows, block].tolist())
        self.start += self.block_size * torch.tensor(ends, device=self.start.device)

    def _gains(self, starts: list[int], blocks: list[list[int]]) -> list[bool]:
        """Take over the tokens that now stand without a gap; returns which rows begin a block."""
        for row in self.going:
            block, answer = blocks[row], self.rows[row]
            filled = block.index(self.mask) if self.mask in block else self.block_size
            seen = len(answer.request.prompt) + len(answer.tokens)
            answer.gain(block[max(0, seen - starts[row]) : filled], self.eos)
            answer.overrun = 0
        return [
            self.mask not in block and answer.finish is None
            for block, answer in zip(blocks, self.rows, strict=True)
        ]

    def _forward(self, begin: Tensor, width: int) -> Tensor:
        """Hidden states of the windows that start at ``begin``, where a block begins."""
        return self.hidden(begin, width, sees=begin[:, None] + self.ends[:width])
