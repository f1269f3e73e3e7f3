"""MARS with the block-level cache of the paper (section 3.5, Table 5, Figure 4).

A batch goes through blocks of ``cache_block`` tokens together. Inside a block every step forwards
the whole block, accepted tokens and masks, against the cached prefix, until every sequence has
filled it; those that are ahead wait. One more forward of the filled block then extends the cache.

Unlike the authors' code the cache is written in place, each sequence has a position of its own,
and a sequence ends at its EOS. Like the cursor engine, a step is one computation on the device, of
which the host reads one tensor; on a GPU it is a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, confidence, cutoff
from mars.decoding.cache import CachedModel, attention_of, gather_at, round_up
from mars.decoding.gpu import Graphs
from mars.decoding.requests import Continuation, Decoded, Request, Times, check_model, longest
from mars.errors import UserError


class Shape(NamedTuple):
    """What fixes the shapes of a forward's tensors, and its CUDA graph."""

    rows: int
    width: int  # tokens forwarded
    kv_length: int  # cache entries read
    extends: bool  # whether the block is full, and goes into the cache


@dataclass
class _Row(Continuation):
    """Host side of a sequence."""

    base: int = 0  # where its block starts
    filled: int = 0  # tokens of the block that are known


class BlockCacheDecoder:
    """Decodes batch after batch of at most ``slots`` requests, each batch through to its end.

    Args:
        model: a causal LM of Llama or Qwen2 architecture, any dtype.
        block_size: predictions per forward, B.
        eos: ids that end a sequence.
        slots: most sequences decoded together.
        max_length: most tokens of one sequence, prompt and continuation.
        cache_block: tokens per cache block, B_cache of Table 5.
        metric, strict: the acceptance rule, see :mod:`mars.decoding.acceptance`.
        authors_window: accept up to the end of the cache block, as the authors' code does (A5),
            instead of ``block_size`` tokens wherever the block ends. The granularity then changes
            the output; with the default it does not.
        memory_limit, compiled: see :class:`mars.decoding.cache.CachedModel`.
        cached: one that other decoders use as well, large enough; then the two above do not count.

    Attributes:
        times: what the batches took so far; a step is one forward of the batch.

    Raises:
        UserError: ``cache_block`` below 1, or the cache does not fit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        block_size: int,
        eos: frozenset[int],
        mask_token_id: int | None,
        slots: int,
        max_length: int,
        cache_block: int = 32,
        metric: str = "probability",
        strict: bool = False,
        authors_window: bool = False,
        memory_limit: int | None = None,
        compiled: bool = True,
        cached: CachedModel | None = None,
    ):
        if cache_block < 1:
            raise UserError(f"cache_block must be at least 1, not {cache_block}.")
        check_model(model, block_size, mask_token_id)
        self.block_size, self.cache_block = block_size, cache_block
        self.metric, self.strict, self.authors_window = metric, strict, authors_window
        self.eos, self.slots = eos, slots
        self.predictions = cache_block if authors_window else block_size
        capacity = max_length + room(block_size, cache_block)
        self.cached = cached or CachedModel(
            model, slots, capacity, mask_token_id, memory_limit, compiled
        )

        # Of each row: what is known, and masks; where its block starts; how many tokens of it are
        # known, which may pass its end by ``block_size - 1``, as a window that straddles the end is
        # not cut; whether it has not ended; the hidden state of the token before the block.
        device, width = model.device, self.cached.capacity
        self.offsets = torch.arange(width, device=device)
        self.mask = mask_token_id or 0
        self.ids = torch.full((slots, width), self.mask, device=device)
        self.base, self.filled, self.going = torch.zeros(3, slots, dtype=torch.long, device=device)
        self.cutoffs = torch.zeros(slots, 1, device=device)
        features = (slots, 1, model.config.hidden_size)
        self.tail = torch.zeros(features, dtype=model.dtype, device=device)

        self.rows: list[_Row] = []
        self.times = Times()
        self.graphs: Graphs[Shape] | None = self.cached.graphs()

    @torch.inference_mode()
    def answer(
        self, requests: Iterable[Request], progress: Callable[[Decoded], None] | None = None
    ) -> list[Decoded]:
        """Decode the requests, results in their order; ``progress`` sees each batch as it ends."""
        queue, done = list(requests), list[Decoded]()
        for request in queue:
            request.check(self.cached.model, self.metric)
        with attention_of(self.cached.model):
            for start in range(0, len(queue), self.slots):
                for decoded in self._batch(queue[start : start + self.slots]):
                    done.append(decoded)
                    if progress is not None:
                        progress(decoded)
        return done

    def _batch(self, requests: Sequence[Request]) -> list[Decoded]:
        start = perf_counter()
        self._place(requests)
        self._prefill()
        prefilled = perf_counter()
        while any(row.finish is None for row in self.rows):
            self._decode()
            self.times.decode_steps += 1
        self.times.prefill_seconds += prefilled - start
        self.times.decode_seconds += perf_counter() - prefilled
        return [row.decoded() for row in self.rows]

    def _place(self, requests: Sequence[Request]) -> None:
        if longest(requests) + room(self.block_size, self.cache_block) > self.cached.capacity:
            raise UserError(
                "A prompt and its max_new_tokens exceed the cache: give a larger max_length."
            )
        device = self.ids.device
        self.rows = [_Row(request, base=len(request.prompt)) for request in requests]
        self.ids.fill_(self.mask)
        for row, request in enumerate(requests):
            self.ids[row, : len(request.prompt)] = torch.tensor(request.prompt, device=device)
        rows = slice(0, len(requests))
        self.base[rows] = torch.tensor([row.base for row in self.rows], device=device)
        self.filled[rows], self.going[rows] = 0, 1
        cutoffs = [cutoff(request.threshold, self.metric) for request in requests]
        self.cutoffs[rows, 0] = torch.tensor(cutoffs, device=device)

    def _prefill(self) -> None:
        """Cache the prompts and keep the hidden state that predicts each block's first token."""
        rows, width = len(self.rows), max(row.base for row in self.rows)
        positions = self.offsets[:width].repeat(rows, 1)
        hidden = self.cached.hidden(self.ids[:rows].gather(1, positions), positions, width)
        self.tail[:rows] = gather_at(hidden, self.base[:rows, None] - 1)
        if hidden.device.type == "cuda":
            torch.cuda.synchronize(hidden.device)  # the prompts are timed apart
        for row in self.rows:
            row.accepted.append(0)

    # One forward

    def _decode(self) -> None:
        """Fill the block further in the sequences that are behind; where none is, extend."""
        going = [row for row in self.rows if row.finish is None]
        behind = [row for row in going if row.filled < self.cache_block]
        shape = self._shape(going, behind)
        compute = self._compute
        report = compute(shape) if self.graphs is None else self.graphs.run(shape, compute)
        if not behind:
            for row in going:
                row.base += self.cache_block
                row.filled -= self.cache_block
                row.accepted.append(0)
            return
        for place, (count, *tokens) in enumerate(report.tolist()):
            row = self.rows[place]
            if row.finish is None and row.filled < self.cache_block:
                row.filled += count
                row.gain(tokens[:count], self.eos)
                if row.finish is not None:
                    self.going[place] = 0

    def _shape(self, going: list[_Row], behind: list[_Row]) -> Shape:
        """Of the next forward; with CUDA graphs there are few widths and lengths."""
        width = self.cache_block
        if behind and not self.authors_window:
            width = max(width, max(row.filled for row in behind) + self.block_size - 1)
        if self.graphs is not None and width > self.cache_block:
            width = self.cache_block + self.block_size - 1
        length = max(row.base for row in going) + width
        fixed = self.graphs is not None
        kv_length = self.cached.fixed_length(length) if fixed else round_up(length)
        return Shape(len(self.rows), width, kv_length, extends=not behind)

    def _compute(self, shape: Shape) -> Tensor:
        """All that happens on the device; reads and writes the state of the rows in place.

        Returns [count, tokens] of each row where the block is not full, which is what
        :meth:`_decode` must know on the host.
        """
        rows = slice(0, shape.rows)
        positions = self.base[rows, None] + self.offsets[: shape.width]
        ids = self.ids[rows].gather(1, positions)
        hidden = self.cached.hidden(ids, positions, shape.kv_length)
        return self._extend(hidden, rows) if shape.extends else self._fill(hidden, rows)

    def _fill(self, hidden: Tensor, rows: slice) -> Tensor:
        """Accept tokens from the left in the sequences that are behind."""
        base, filled = self.base[rows], self.filled[rows]
        states = torch.cat([self.tail[rows], hidden], 1)
        offsets = self.offsets[: self.predictions]
        columns = (filled[:, None] + offsets).clamp(max=hidden.shape[1])
        logits = self.cached.logits(gather_at(states, columns))
        tokens = logits.argmax(-1)
        count = accepted_run(confidence(logits, self.metric), self.cutoffs[rows], self.strict)
        if self.authors_window:
            count = count.minimum(self.cache_block - filled)
        count = count * self.going[rows] * (filled < self.cache_block)
        places = (base + filled)[:, None] + offsets
        known = tokens.where(offsets < count[:, None], self.ids[rows].gather(1, places))
        self.ids[rows].scatter_(1, places, known)
        filled += count
        return torch.cat([count[:, None], tokens], 1)

    def _extend(self, hidden: Tensor, rows: slice) -> Tensor:
        """Go to the next block; the forward of this one, without masks, has extended the cache."""
        base, filled, going = self.base[rows], self.filled[rows], self.going[rows]
        self.tail[rows] = hidden[:, -1:]
        base += self.cache_block * going
        filled -= self.cache_block * going
        return base


def room(block_size: int, cache_block: int) -> int:
    """Positions that a sequence needs beyond its own tokens."""
    return 2 * (cache_block + block_size)
