"""MARS with the block-level cache of the paper (section 3.5, Table 5, Figure 4).

A batch goes through blocks of ``cache_block`` tokens together. Inside a block every step forwards
the whole block, accepted tokens and masks, against the cached prefix, until every sequence has
filled it; those that are ahead wait. One more forward of the filled block then extends the cache.

Unlike the authors' code the cache is written in place, each sequence has a position of its own,
and a sequence ends at its EOS.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, confidence
from mars.decoding.batch import CachedBatch
from mars.decoding.cache import attention_of, gather_at
from mars.decoding.requests import Decoded, Request, Times
from mars.errors import UserError


@torch.inference_mode()
def decode_block_cache(
    model: PreTrainedModel,
    requests: list[Request],
    *,
    block_size: int,
    eos: frozenset[int],
    mask_token_id: int,
    cache_block: int = 32,
    metric: str = "probability",
    strict: bool = False,
    authors_window: bool = False,
    memory_limit: int | None = None,
    times: Times | None = None,
) -> list[Decoded]:
    """Decode one batch, all requests together.

    Args:
        cache_block: tokens per cache block, B_cache of Table 5.
        authors_window: accept up to the end of the cache block, as the authors' code does (A5),
            instead of ``block_size`` tokens wherever the block ends. The granularity then changes
            the output; with the default it does not.
        times: what the batch took is added here; a step is one forward of the batch.

    Raises:
        UserError: ``cache_block`` below 1, or the cache does not fit.
    """
    if cache_block < 1:
        raise UserError(f"cache_block must be at least 1, not {cache_block}.")
    rule = {"eos": eos, "mask_token_id": mask_token_id, "metric": metric}
    batch = _BlockBatch(block_size, cache_block, model, requests, **rule, memory_limit=memory_limit)
    times = Times() if times is None else times
    start = perf_counter()
    batch.prefill()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    prefilled = perf_counter()
    with attention_of(model):
        while batch.going:
            if behind := batch.behind:
                batch.step(behind, metric, strict, authors_window)
            else:
                batch.extend()
            times.decode_steps += 1
    times.prefill_seconds += prefilled - start
    times.decode_seconds += perf_counter() - prefilled
    return batch.decoded()


class _BlockBatch(CachedBatch):
    """State of one batch. ``base`` is where each row's block starts, ``filled`` its known tokens.

    ``filled`` may pass the end of the block by up to ``block_size - 1``: a window that straddles
    the end is not cut, what it yields beyond opens the next block.
    """

    def __init__(self, block_size: int, cache_block: int, *arguments: Any, **rule: Any):
        super().__init__(*arguments, **rule, room=2 * (cache_block + block_size))
        self.block_size, self.cache_block = block_size, cache_block
        self.base = self.prompt_lengths.clone()
        self.filled = torch.zeros_like(self.base)
        self.known = [0] * len(self.rows)  # the same, on the host
        self.tail: Tensor  # hidden state of the token before the block, [rows, 1, hidden size]

    @property
    def behind(self) -> list[int]:
        """The rows that still have to fill the block."""
        return [row for row in self.going if self.known[row] < self.cache_block]

    def prefill(self) -> None:
        """Cache the prompts and keep the hidden state that predicts each block's first token."""
        hidden = self.hidden(torch.zeros_like(self.base), int(self.base.max()))
        self.tail = gather_at(hidden, self.base[:, None] - 1)
        for one in self.rows:
            one.accepted.append(0)

    def step(self, behind: list[int], metric: str, strict: bool, authors_window: bool) -> None:
        """Forward the block, and accept tokens from the left in the sequences that are behind."""
        predictions = self.cache_block if authors_window else self.block_size
        width = self.cache_block
        if not authors_window:
            width = max(width, max(self.known[row] for row in behind) + self.block_size - 1)
        hidden = torch.cat([self.tail, self.hidden(self.base, width)], 1)
        offsets = self.offsets[:predictions]
        columns = (self.filled[:, None] + offsets).clamp(max=width)
        logits = self.cached.logits(gather_at(hidden, columns))
        tokens = logits.argmax(-1)
        count = accepted_run(confidence(logits, metric), self.cutoffs, strict)
        if authors_window:
            count = count.minimum(self.cache_block - self.filled)
        takes_part = torch.zeros_like(count)
        takes_part[behind] = 1
        count *= takes_part
        places = (self.base + self.filled)[:, None] + offsets
        known = tokens.where(offsets < count[:, None], self.ids.gather(1, places))
        self.ids.scatter_(1, places, known)
        self.filled += count
        counts, rows = count.tolist(), tokens.tolist()
        for row in behind:
            self.known[row] += counts[row]
            self.rows[row].gain(rows[row][: counts[row]], self.eos)

    def extend(self) -> None:
        """Forward the filled block once more, now without masks, and go to the next block."""
        going = self.going
        self.tail = self.hidden(self.base, self.cache_block)[:, -1:]
        self.base[going] += self.cache_block
        self.filled[going] -= self.cache_block
        for row in going:
            self.known[row] -= self.cache_block
            self.rows[row].accepted.append(0)
