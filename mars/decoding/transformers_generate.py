"""Greedy ``generate`` of transformers, batch after batch: the baseline everybody has.

With a repetition penalty it is what the authors' evaluation runs for AR checkpoints, which inherit
one from their generation config (AUDIT A1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mars.decoding.requests import Decoded, Request, finished


@torch.inference_mode()
def decode_transformers(
    model: PreTrainedModel,
    requests: Sequence[Request],
    *,
    eos: frozenset[int],
    mask_token_id: int | None = None,
    repetition_penalty: float = 1.0,
    **options: Any,
) -> list[Decoded]:
    """Continue one batch of prompts, padded on the left; one token per forward.

    Args:
        requests: their thresholds do not matter; ``generate`` runs to the largest budget.
        eos: ids that end a sequence.
        mask_token_id: never predicted; None where there is none.
        repetition_penalty: divides the positive logits of tokens that were seen, 1 is none.
        options: for ``generate``.
    """
    # Not EOS where there is a choice: a penalty takes padding for tokens that were seen.
    padding = min(eos, default=0) if mask_token_id is None else mask_token_id
    ids, attention = left_padded([request.prompt for request in requests], padding)
    generate: Any = model.generate
    output = generate(
        ids.to(model.device),
        attention_mask=attention.to(model.device),
        max_new_tokens=max(request.max_new_tokens for request in requests),
        suppress_tokens=None if mask_token_id is None else [mask_token_id],
        repetition_penalty=repetition_penalty,
        eos_token_id=sorted(eos) or None,
        pad_token_id=padding,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        **options,
    )
    done = []
    for request, row in zip(requests, output[:, ids.shape[1] :].tolist(), strict=True):
        tokens, finish = finished([], row, request, eos)
        done.append(Decoded(tokens, len(tokens), [1] * len(tokens), finish or "length"))
    return done


def left_padded(
    prompts: Sequence[Sequence[int]], padding: int, longest: int = 0
) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, [batch, the longest prompt or ``longest``], padded on the left."""
    width = max(longest, *map(len, prompts))
    ids = [[padding] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)
