"""The sliding window of paper section 3.4 without a cache: slow, short, and the ground truth.

Every forward sees the whole prefix and the masks after it. One sequence at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, confidence, cutoff, forbid
from mars.decoding.requests import Decoded, Request, finished


def decode_window(
    model: PreTrainedModel, requests: Sequence[Request], **rule: Any
) -> list[Decoded]:
    """Continue each prompt; ``rule`` is the rest of :func:`decode_one`."""
    return [decode_one(model, request, **rule) for request in requests]


@torch.inference_mode()
def decode_one(
    model: PreTrainedModel,
    request: Request,
    *,
    block_size: int,
    eos: frozenset[int],
    mask_token_id: int | None,
    metric: str = "probability",
    strict: bool = False,
    lossless: bool = False,
    extra_mask: bool = False,
) -> Decoded:
    """Continue one prompt; the arguments are those of :class:`mars.decoding.cursor.Engine`.

    The last prefix token and ``block_size - 1`` masks predict the next ``block_size`` tokens.
    """
    request.check(metric)
    predictions = block_size + extra_mask
    masks = [] if mask_token_id is None else [mask_token_id] * (predictions - 1)
    needed = torch.tensor(cutoff(request.threshold, metric))
    tokens: list[int] = []
    unchecked: list[int] = []  # lossless: accepted from masks, not yet compared with AR
    accepted: list[int] = []
    finish = None
    while finish is None:
        prefix = [*request.prompt, *tokens, *unchecked]
        first = len(request.prompt) + len(tokens) - 1
        logits = _logits(model, prefix + masks, first, mask_token_id)
        predicted = logits.argmax(-1).tolist()
        window = confidence(logits[len(unchecked) :], metric)
        run = int(accepted_run(window, needed, strict))
        if not lossless:
            new = predicted[:run]
        else:
            agreed = _agreement(unchecked, predicted)
            new = predicted[: agreed + 1]
            all_agreed = agreed == len(unchecked)
            unchecked = predicted[agreed + 1 : agreed + run] if all_agreed else []
        gained, finish = finished(tokens, new, request, eos)
        tokens += gained
        accepted.append(len(gained))
    return Decoded(tokens, len(accepted), accepted, finish, overrun=len(new) - len(gained))


def _logits(
    model: PreTrainedModel, ids: list[int], first: int, mask_token_id: int | None
) -> Tensor:
    """Float32 logits of positions ``first`` and later, [positions, vocabulary], masks forbidden."""
    logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    logits = logits[0, first:].float()
    return logits if mask_token_id is None else forbid(logits, mask_token_id)


def _agreement(unchecked: list[int], predicted: list[int]) -> int:
    """How many unchecked tokens, from the left, are what AR decoding says there."""
    agreed = 0
    while agreed < len(unchecked) and unchecked[agreed] == predicted[agreed]:
        agreed += 1
    return agreed
