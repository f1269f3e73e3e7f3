"""From documents to packed rows: the batches of a run, and what one forward pass reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mars.training.arrangement import FLEX_BLOCK, arrange
from mars.training.dual_stream import CLEAN, Stream

PADDING = -1  # document number of padding


@dataclass(frozen=True)
class Rows:
    """What one forward pass reads: R rows of T tokens and their N labels.

    ``tokens, positions, documents, blocks, clean_limits, noisy_limits`` are (R, T) and mean what
    they mean in :class:`~mars.training.dual_stream.Stream`; ``documents`` numbers the documents of
    a row. ``labels`` (N,) index the R*T flattened tokens; ``targets`` (N,). ``ar_weights`` and
    ``mask_weights`` (N,) are the share of each label in the AR loss and in the mask loss of the
    whole optimiser step, so that losses of forward passes and of devices simply add up.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor
    blocks: torch.Tensor
    clean_limits: torch.Tensor
    noisy_limits: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    ar_weights: torch.Tensor
    mask_weights: torch.Tensor

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return Rows(**moved)

    def pin_memory(self) -> Rows:
        """The same rows in memory that a GPU can copy from while the host goes on."""
        return Rows(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as plain arrays, so that they pass through a pipe from process to process.

        PyTorch would put each tensor into shared memory: hundreds of open files for the rows of a
        step, and room in /dev/shm, of which containers have little.
        """
        return _from_arrays, tuple(getattr(self, f.name).numpy() for f in fields(self))

    def silent(self) -> Rows:
        """The same rows without weight, for a device that has no rows of its own left."""
        nothing = torch.zeros_like(self.ar_weights)
        return replace(self, ar_weights=nothing, mask_weights=nothing)

    def _sees(self, query: Any, key: Any) -> torch.Tensor:
        """Whether queries at one index of (R, T) see keys at another: the rule of equation 2."""
        block, position = self.blocks[key], self.positions[key]
        clean = (block == CLEAN) & (position < self.clean_limits[query])
        own = (block != CLEAN) & (block == self.blocks[query])
        noisy = own & (position < self.noisy_limits[query])
        return (self.documents[query] == self.documents[key]) & (clean | noisy)

    def dense_mask(self) -> torch.Tensor:
        """(R, 1, T, T) boolean attention mask, true where the query (row) sees the key (column)."""
        return self._sees(np.s_[:, None, :, None], np.s_[:, None, None, :])

    def additive_mask(self, dtype: torch.dtype) -> torch.Tensor:
        """The same mask to be added to attention scores: 0 where visible, else -inf."""
        mask = self.dense_mask()
        return mask.new_zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -math.inf)

    def flex_mask(self):  # type: ignore[no-untyped-def]
        """The same mask as a block mask of flex attention, for CUDA; T in multiples of 128.

        PyTorch's ``create_block_mask`` makes the same of a function of single indices, slowly: most
        of that is Python on the host.
        """
        from torch.nn.attention.flex_attention import BlockMask

        def mask_mod(row, head, query, key):  # type: ignore[no-untyped-def]
            return self._sees((row, query), (row, key))

        seen = self.dense_mask()
        blocks = seen.unflatten(3, (-1, FLEX_BLOCK)).unflatten(2, (-1, FLEX_BLOCK))
        some, every = blocks.any(5).any(3), blocks.all(5).all(3)
        partly, wholly = _listed(some & ~every), _listed(every)
        return BlockMask.from_kv_blocks(
            *partly, *wholly, FLEX_BLOCK, mask_mod, seq_lengths=seen.shape[2:]
        )


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of (..., K) blocks, how many are true, and the indices of all, the true ones first."""
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), indices.to(torch.int32)


def steps_of_run(examples: int, epochs: float, batch_size: int) -> int:
    """Optimiser steps of a run over ``examples`` documents; the last batch may be short."""
    return math.ceil(round(examples * epochs) / batch_size)


class Batches:
    """The batches of a run, one per optimiser step, as (epoch, example) pairs.

    Every epoch is a new shuffle that depends only on seed and epoch. Epochs follow each other
    without a break; the last one may be partial, and only the last batch may be short.
    """

    def __init__(self, examples: int, epochs: float, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size = examples, batch_size
        self.total = round(examples * epochs)
        self.steps = steps_of_run(examples, epochs, batch_size)

        @lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng([seed, epoch]).permutation(examples)

        self._order = order

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        start = step * self.batch_size
        ordinals = range(start, min(start + self.batch_size, self.total))
        places = (divmod(ordinal, self.examples) for ordinal in ordinals)
        return [(epoch, int(self._order(epoch)[place])) for epoch, place in places]


def pack(
    streams: Sequence[Stream],
    *,
    row_length: int,
    rows_per_forward: int,
    normalisation: str,
    ar_weight: float,
    fixed_shape: bool = False,
    processes: int = 1,
    process: int = 0,
) -> list[Rows]:
    """The forward passes that one of several processes runs for an optimiser step.

    Args:
        streams: all documents of the step, whichever process reads them.
        row_length, rows_per_forward, fixed_shape, processes: as :func:`arrange` takes them.
        normalisation: ``sequence``: mean over documents of their mean over predicted tokens;
            ``token``: mean over all predicted tokens of the step.
        ar_weight: weight of the AR loss. Labels that weigh nothing are left out.
    """
    total = sum(stream.size for stream in streams)
    per_document = normalisation == "sequence"
    shares = [1 / (len(streams) * stream.size if per_document else total) for stream in streams]
    forwards = arrange(
        [len(stream) for stream in streams],
        row_length=row_length,
        rows_per_forward=rows_per_forward,
        processes=processes,
        fixed_shape=fixed_shape,
    )
    packed = []
    for forward in forwards[process::processes]:
        documents = [[(streams[i], shares[i]) for i in row] for row in forward.rows]
        rows = _rows(documents, forward.length, ar_weight)
        packed.append(rows.silent() if forward.silent else rows)
    return packed


def _rows(rows: list[list[tuple[Stream, float]]], length: int, ar_weight: float) -> Rows:
    """Write documents (with their share of the loss) one after another into rows of ``length``."""
    shape = (len(rows), length)
    positions = np.tile(np.arange(length), (len(rows), 1))  # padding is causal among itself
    grid = {
        "tokens": np.zeros(shape, dtype=int),  # padding may be any token; nothing sees it
        "positions": positions,
        "documents": np.full(shape, PADDING, dtype=np.int32),
        "blocks": np.full(shape, CLEAN, dtype=np.int32),
        "clean_limits": (positions + 1).astype(np.int32),
        "noisy_limits": np.zeros(shape, dtype=np.int32),
    }
    labels, targets, ar_weights, mask_weights = [], [], [], []
    for row, contents in enumerate(rows):
        start = 0
        for number, (stream, share) in enumerate(contents):
            part = (row, slice(start, start + len(stream)))
            grid["documents"][part] = number
            for name in grid.keys() - {"documents"}:
                grid[name][part] = getattr(stream, name)
            counted = ar_weight * stream.ar_terms + stream.mask_terms > 0
            labels.append(row * length + start + stream.labels[counted])
            targets.append(stream.targets[counted].astype(np.int64))
            ar_weights.append(share * stream.ar_terms[counted])
            mask_weights.append(share * stream.mask_terms[counted])
            start += len(stream)
    lists = {"labels": labels, "targets": targets}
    lists |= {"ar_weights": ar_weights, "mask_weights": mask_weights}
    joined = {name: np.concatenate(parts) for name, parts in lists.items()}
    return Rows(**{name: torch.from_numpy(value) for name, value in (grid | joined).items()})


def _from_arrays(*arrays: np.ndarray) -> Rows:
    """The rows that were pickled."""
    return Rows(*map(torch.from_numpy, arrays))
