"""MARS together with speculative decoding (paper section 3.6, Table 6, Figure 5).

A small model drafts K tokens. One forward of the target checks them and, at the same time,
continues after each of them: behind the draft stand K + 1 groups of masks, and group j sees the
text and the first j draft tokens only. Where the target first disagrees with the draft, after j
tokens, its own token follows, and then what group j predicts, accepted from the left as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, agreement, confidence, cutoff
from mars.decoding.cache import CachedModel
from mars.decoding.requests import Continuation, Decoded, Request, check_model, longest
from mars.errors import UserError


@torch.inference_mode()
def decode_speculative(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    request: Request,
    *,
    draft_tokens: int = 4,
    block_size: int,
    draft_block_size: int = 1,
    draft_threshold: float | None = None,
    eos: frozenset[int],
    mask_token_id: int | None,
    metric: str = "probability",
    strict: bool = False,
) -> Decoded:
    """Continue one prompt greedily with a target and a draft model of the same tokenizer.

    ``request.threshold`` is the target's tau: with None (or ``block_size`` 1) there are no mask
    groups and the output is the target's own greedy decoding; the paper's row without MARS.

    ``forwards`` and ``accepted`` count forwards of the target, ``draft_forwards`` the draft's.

    Args:
        draft_tokens: K, tokens drafted per target forward.
        block_size: B of the target, B - 1 masks per group.
        draft_block_size, draft_threshold: B and tau of the draft; 1 drafts autoregressively.
    """
    if draft_tokens < 1:
        raise UserError(f"draft_tokens must be at least 1, not {draft_tokens}.")
    for model, size in ((target, block_size), (draft, draft_block_size)):
        request.check(model, metric)
        check_model(model, size, mask_token_id)
    shared = (draft_tokens, longest([request]), mask_token_id, metric, strict)
    verifier = _Reader(target, block_size, *shared)
    drafter = _Reader(draft, draft_block_size, *shared)
    known = list(request.prompt)
    answer = Continuation(request)
    while answer.finish is None:
        drafted = drafter.draft(known, draft_threshold)
        agreed, own = verifier.verify(known, drafted, request.threshold)
        drafter.cursor = min(drafter.cursor, len(known) + agreed)
        known += answer.gain(drafted[:agreed] + own, eos)
    return answer.decoded(drafter.forwards)


@dataclass
class _Reader:
    """One model, its cache of one row, and how far that row is valid (``cursor``)."""

    model: PreTrainedModel
    block_size: int
    draft_tokens: int
    longest: int
    mask_token_id: int | None
    metric: str
    strict: bool
    cursor: int = 0
    forwards: int = 0

    def __post_init__(self) -> None:
        window = (self.draft_tokens + 2) * self.block_size
        self.cached = CachedModel(self.model, 1, self.longest + window, self.mask_token_id)
        self.mask, self.device = self.mask_token_id or 0, self.model.device

    def draft(self, known: list[int], threshold: float | None) -> list[int]:
        """The next ``draft_tokens`` tokens as this model sees them, by windows of masks or AR."""
        masks = 0 if threshold is None else self.block_size - 1
        drafted: list[int] = []
        while len(drafted) < self.draft_tokens:
            text = known + drafted
            ids = text[self.cursor :] + [self.mask] * masks
            positions = range(self.cursor, self.cursor + len(ids))
            hidden = self._forward(ids, list(positions), None)
            drafted += self._accept(self.cached.logits(hidden[-1 - masks :]), threshold)
            self.cursor = len(text)
        return drafted[: self.draft_tokens]

    def verify(
        self, known: list[int], drafted: list[int], threshold: float | None
    ) -> tuple[int, list[int]]:
        """How many drafted tokens this model agrees with, and how it continues after those."""
        masks = 0 if threshold is None else self.block_size - 1
        text = known[self.cursor :] + drafted
        groups = len(drafted) + 1
        group_positions = [
            len(known) + group + mask for group in range(groups) for mask in range(masks)
        ]
        positions = [*range(self.cursor, self.cursor + len(text)), *group_positions]
        bias = group_bias(self.cursor, len(text), groups, masks) if masks else None
        ids = text + [self.mask] * (groups * masks)
        hidden = self._forward(ids, positions, bias)
        after = len(text) - groups  # the row that predicts the first drafted token
        logits = self.cached.logits(hidden[after:])
        predicted = logits[:groups].argmax(-1).tolist()
        agreed = agreement(drafted, predicted)
        start = groups + agreed * masks
        own = torch.cat([logits[agreed : agreed + 1], logits[start : start + masks]])
        self.cursor = len(known) + agreed
        return agreed, self._accept(own, threshold)

    def _forward(self, ids: list[int], positions: list[int], bias: Tensor | None) -> Tensor:
        self.forwards += 1
        tokens, places = torch.tensor([[ids], [positions]], device=self.device)
        if bias is not None:
            bias = bias.to(self.device)
        return self.cached.hidden(tokens, places, self.cursor + len(ids), bias=bias)[0]

    def _accept(self, logits: Tensor, threshold: float | None) -> list[int]:
        """The leftmost run of [predictions, vocabulary]."""
        needed = torch.tensor(cutoff(threshold, self.metric), device=logits.device)
        run = int(accepted_run(confidence(logits, self.metric), needed, self.strict))
        return logits.argmax(-1)[:run].tolist()


def group_bias(cursor: int, text: int, groups: int, masks: int) -> Tensor:
    """Who sees whom in the verifying forward (Figure 5): [1, 1, queries, cursor + queries].

    Args:
        cursor: entries already cached, seen by all.
        text: forwarded text tokens; the last ``groups - 1`` of them are the draft. Causal.
        groups: mask groups; group j sees the text up to the j-th draft token.
        masks: masks per group, causal inside it, seen by nobody else.
    """
    queries = text + groups * masks
    index = torch.arange(queries)
    group = torch.where(index < text, -1, (index - text) // masks)
    last_text = torch.where(group < 0, index, text - groups + group)
    sees_text = (index < text) & (index <= last_text[:, None])
    sees_group = (group >= 0) & (group == group[:, None]) & (index <= index[:, None])
    visible = torch.cat([torch.ones(queries, cursor, dtype=torch.bool), sees_text | sees_group], 1)
    return torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)[None, None]
