"""Greedy ``generate`` of transformers, batch after batch: the baseline everybody has.

With a repetition penalty it is what the authors' evaluation runs for AR checkpoints, which inherit
one from their generation config (docs/differences.md, A1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from mars.decoding.requests import Continuation, Decoded, Request


def decode_transformers(
    model: PreTrainedModel,
    requests: Sequence[Request],
    *,
    eos: frozenset[int],
    mask_token_id: int | None = None,
    repetition_penalty: float = 1.0,
    static_length: int = 0,
) -> list[Decoded]:
    """Continue one batch of prompts, padded on the left; one token per forward.

    Args:
        requests: their thresholds do not matter; ``generate`` runs to the largest budget.
        mask_token_id: never predicted; None where there is none.
        repetition_penalty: divides the positive logits of tokens that were seen, 1 is none.
        static_length: with a static cache, for which transformers compiles the model: the length
            to which prompts are padded, so that it compiles once. 0: a dynamic cache.
    """
    # Not EOS where there is a choice: a penalty takes padding for tokens that were seen.
    padding = min(eos, default=0) if mask_token_id is None else mask_token_id
    width = max(static_length, *(len(request.prompt) for request in requests))
    missing = [width - len(request.prompt) for request in requests]
    rows = zip(missing, requests, strict=True)
    ids = torch.tensor([[padding] * count + list(request.prompt) for count, request in rows])
    attention = torch.tensor([[0] * count + [1] * (width - count) for count in missing])
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
        **({"cache_implementation": "static"} if static_length else {}),
    )
    done = []
    for request, row in zip(requests, output[:, width:].tolist(), strict=True):
        answer = Continuation(request)
        tokens = answer.gain(row, eos)
        done.append(Decoded(tokens, len(tokens), [1] * len(tokens), answer.finish or "length"))
    return done
