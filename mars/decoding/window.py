"""The sliding window of paper section 3.4 without a cache: every forward sees the whole prefix.

``decode_window`` takes one sequence at a time: slow, short, and the ground truth.
``decode_window_batch`` takes several; it is what the paper's Table 5 calls "no cache".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, agreement, confidence, cutoff, forbid
from mars.decoding.batch import Batch
from mars.decoding.cache import gather_at
from mars.decoding.requests import Continuation, Decoded, Request, check_model, longest


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
    request.check(model, metric)
    predictions = block_size + extra_mask
    masks = [] if mask_token_id is None else [mask_token_id] * (predictions - 1)
    needed = torch.tensor(cutoff(request.threshold, metric))
    answer = Continuation(request)
    unchecked: list[int] = []  # lossless: accepted from masks, not yet compared with AR
    while answer.finish is None:
        known = [*request.prompt, *answer.tokens]
        ids = torch.tensor([[*known, *unchecked, *masks]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(known) - 1 :]
        logits = forbid(logits, mask_token_id)
        predicted = logits.argmax(-1).tolist()
        run = int(accepted_run(confidence(logits[len(unchecked) :], metric), needed, strict))
        if not lossless:
            new = predicted[:run]
        else:
            agreed = agreement(unchecked, predicted)
            new = predicted[: agreed + 1]
            all_agreed = agreed == len(unchecked)
            unchecked = predicted[agreed + 1 : agreed + run] if all_agreed else []
        answer.gain(new, eos)
    return answer.decoded()


@torch.inference_mode()
def decode_window_batch(
    model: PreTrainedModel,
    requests: list[Request],
    *,
    block_size: int,
    eos: frozenset[int],
    mask_token_id: int | None,
    metric: str = "probability",
    strict: bool = False,
) -> list[Decoded]:
    """Continue one batch of prompts; the arguments are those of the window without extensions.

    Rows stand on the left with lengths of their own; what fills them up on the right comes after
    everything a window looks at, so causal attention hides it and no padding mask is needed. The
    output embedding is applied to the window only, and a sequence that has ended leaves the batch.

    Raises:
        UserError: a request or setting that cannot be decoded.
    """
    check_model(model, block_size, mask_token_id)
    width = longest(requests) + block_size
    batch = Batch(requests, metric, width, mask_token_id or 0, model)
    while going := batch.going:
        lengths = [len(requests[row].prompt) + len(batch.rows[row].tokens) for row in going]
        logits = _logits(model, batch.ids[going], lengths, block_size, mask_token_id)
        runs = accepted_run(confidence(logits, metric), batch.cutoffs[going], strict).tolist()
        rows = zip(going, lengths, logits.argmax(-1).tolist(), runs, strict=True)
        for row, length, predicted, run in rows:
            gained = batch.rows[row].gain(predicted[:run], eos)
            known = torch.tensor(gained, device=model.device)
            batch.ids[row, length : length + len(gained)] = known
    return batch.decoded()


def _logits(
    model: PreTrainedModel,
    ids: Tensor,
    lengths: list[int],
    block_size: int,
    mask_token_id: int | None,
) -> Tensor:
    """Float32 logits of each row's window, [rows, block_size, vocabulary], masks forbidden."""
    width = max(lengths) + block_size - 1
    hidden = model.get_decoder()(input_ids=ids[:, :width], use_cache=False).last_hidden_state
    start = torch.tensor(lengths, device=ids.device)[:, None] - 1
    window = gather_at(hidden, start + torch.arange(block_size, device=ids.device))
    return forbid(model.get_output_embeddings()(window), mask_token_id)
