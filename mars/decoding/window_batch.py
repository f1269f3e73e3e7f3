"""The sliding window without a cache for a batch: what the paper's Table 5 calls "no cache".

The same forwards as :mod:`mars.decoding.window`, of several sequences at once. Rows stand on the
left with lengths of their own; what fills them up on the right comes after everything a window
looks at, so causal attention hides it and no padding mask is needed. The output embedding is
applied to the window only, and a sequence that has ended leaves the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.acceptance import accepted_run, confidence, forbid
from mars.decoding.batch import Batch, longest
from mars.decoding.cache import gather_at
from mars.decoding.requests import Decoded, Request, check_model


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

    Raises:
        UserError: a request or setting that cannot be decoded.
    """
    check_model(model, block_size, mask_token_id)
    width = longest(requests) + block_size
    batch = Batch(requests, eos, metric, width, mask_token_id or 0, model.device)
    while going := batch.going:
        lengths = [len(requests[row].prompt) + len(batch.tokens[row]) for row in going]
        logits = _logits(model, batch.ids[going], lengths, block_size, mask_token_id)
        runs = accepted_run(confidence(logits, metric), batch.cutoffs[going], strict).tolist()
        for row, length, predicted, run in zip(
            going, lengths, logits.argmax(-1).tolist(), runs, strict=True
        ):
            gained = batch.gain(row, predicted[:run])
            known = torch.tensor(gained, device=model.device)
            batch.ids[row, length : length + len(gained)] = known
            batch.overrun[row] = run - len(gained)
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
    logits = model.get_output_embeddings()(window).float()
    return logits if mask_token_id is None else forbid(logits, mask_token_id)
