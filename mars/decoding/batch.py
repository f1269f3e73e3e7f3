"""Shared by the decoders that decode a batch of prompts together until all have ended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import cutoff
from mars.decoding.cache import CachedModel
from mars.decoding.requests import Continuation, Decoded, Request, longest


class Batch:
    """Prompts on the left of a buffer, and how far each sequence has come.

    Attributes:
        ids: known tokens, and ``fill`` wherever nothing is known yet, [rows, width].
        cutoffs: the confidence that a token needs, [rows, 1].
    """

    def __init__(
        self,
        requests: Sequence[Request],
        metric: str,
        width: int,
        fill: int,
        model: PreTrainedModel,
    ):
        device = model.device
        for request in requests:
            request.check(model, metric)
        self.rows = [Continuation(request) for request in requests]
        self.ids = torch.full((len(requests), width), fill, device=device)
        for row, request in enumerate(requests):
            self.ids[row, : len(request.prompt)] = torch.tensor(request.prompt, device=device)
        cutoffs = [cutoff(request.threshold, metric) for request in requests]
        self.cutoffs = torch.tensor(cutoffs, device=device)[:, None]

    @property
    def going(self) -> list[int]:
        """The rows that have not ended."""
        return [row for row, one in enumerate(self.rows) if one.finish is None]

    def decoded(self) -> list[Decoded]:
        """The continuations, once every sequence has ended."""
        return [one.decoded() for one in self.rows]


class CachedBatch(Batch):
    """A batch with a key-value cache, which has ``room`` tokens to spare for any sequence."""

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        *,
        eos: frozenset[int],
        mask_token_id: int,
        metric: str,
        room: int,
        memory_limit: int | None,
    ):
        capacity = longest(requests) + room
        self.cached = CachedModel(model, len(requests), capacity, mask_token_id, memory_limit)
        self.eos, width = eos, self.cached.capacity
        super().__init__(requests, metric, width, mask_token_id, model)
        self.offsets = torch.arange(width, device=model.device)
        lengths = [len(request.prompt) for request in requests]
        self.prompt_lengths = torch.tensor(lengths, device=model.device)

    def hidden(self, start: Tensor, width: int, sees: Tensor | None = None) -> Tensor:
        """Last hidden states of a window per row, [rows, width, hidden size]."""
        positions = start[:, None] + self.offsets[:width]
        ids = self.ids.gather(1, positions)
        return self.cached.hidden(ids, positions, int(start.max()) + width, sees=sees)
