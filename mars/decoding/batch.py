"""What decoders share that take a batch of prompts through to the end together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from mars.decoding.acceptance import cutoff
from mars.decoding.cache import CachedModel
from mars.decoding.requests import Decoded, Request, finished


class Batch:
    """Prompts on the left of a buffer, and what each sequence has gained so far.

    Attributes:
        ids: known tokens, and ``fill`` wherever nothing is known yet, [rows, width].
        cutoffs: the confidence that a token needs, [rows, 1].
        overrun: tokens that the last forward accepted beyond EOS or the budget.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        eos: frozenset[int],
        metric: str,
        width: int,
        fill: int,
        device: torch.device,
    ):
        for request in requests:
            request.check(metric)
        self.requests, self.eos = requests, eos
        self.ids = torch.full((len(requests), width), fill, device=device)
        for row, request in enumerate(requests):
            self.ids[row, : len(request.prompt)] = torch.tensor(request.prompt, device=device)
        cutoffs = [cutoff(request.threshold, metric) for request in requests]
        self.cutoffs = torch.tensor(cutoffs, device=device)[:, None]
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.accepted: list[list[int]] = [[] for _ in requests]
        self.finish: list[str | None] = [None] * len(requests)
        self.overrun = [0] * len(requests)

    @property
    def going(self) -> list[int]:
        """The rows that have not ended."""
        return [row for row, finish in enumerate(self.finish) if finish is None]

    def gain(self, row: int, new: list[int]) -> list[int]:
        """Take over the tokens of a forward that count, which are returned."""
        gained = new
        if new:
            request = self.requests[row]
            gained, self.finish[row] = finished(self.tokens[row], new, request, self.eos)
        self.tokens[row] += gained
        self.accepted[row].append(len(gained))
        return gained

    def decoded(self) -> list[Decoded]:
        """The continuations, once every sequence has ended."""
        rows = zip(self.tokens, self.accepted, self.finish, self.overrun, strict=True)
        return [Decoded(one, len(gains), gains, end or "", over) for one, gains, end, over in rows]


class CachedBatch(Batch):
    """The same with a key-value cache that has ``room`` for that much more than any sequence."""

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
        width = self.cached.capacity
        super().__init__(requests, eos, metric, width, mask_token_id, model.device)
        self.offsets = torch.arange(width, device=model.device)
        lengths = [len(request.prompt) for request in requests]
        self.prompt_lengths = torch.tensor(lengths, device=model.device)


def longest(requests: Sequence[Request]) -> int:
    """Most tokens that a sequence of the batch may come to."""
    return max(len(request.prompt) + request.max_new_tokens for request in requests)
