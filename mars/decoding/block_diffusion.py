"""Decoding of the block-diffusion baseline: one block after the other, by confidence inside it.

The plain form of arXiv 2503.09573: clean tokens see their block and earlier ones, the block under
way sees them and all of itself; a masked position predicts its own token. One sequence at a time,
with a key-value cache of the finished blocks.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel

from mars.decoding.acceptance import cutoff, forbid
from mars.decoding.requests import Decoded, Request, finished


@torch.inference_mode()
def decode_block_diffusion(
    model: PreTrainedModel,
    request: Request,
    *,
    block_size: int,
    eos: frozenset[int],
    mask_token_id: int,
) -> Decoded:
    """Continue one prompt greedily.

    Args:
        model: a causal LM in eval mode, trained with block diffusion.
        request: at threshold tau every forward fixes the masks whose probability reaches it, and
            at least the most confident one; None: exactly one.
        block_size: B of the training; blocks are counted from the start of the prompt.
        eos: ids that end a sequence.
        mask_token_id: id of [MASK]; never predicted.

    Returns:
        The tokens up to and including the first EOS, and the forwards it took. ``accepted``
        counts tokens where the text grows from the left without a gap: 0 in a forward that fixed
        a token behind a mask.
    """
    mask = mask_token_id
    ids = list(request.prompt)
    prompt_length, cached = len(ids), 0
    needed = cutoff(request.threshold, "probability")
    cache = DynamicCache(config=model.config)
    tokens: list[int] = []
    accepted: list[int] = []
    finish = None
    while finish is None:
        if mask not in ids[prompt_length:]:  # the last block is full: begin the next one
            ids += [mask] * (block_size - len(ids) % block_size)
        start = len(ids) - block_size
        logits = _block_logits(model, ids, cached, cache, block_size)
        cache.crop(-block_size)  # keep the finished blocks, drop the one under way
        cached = start
        confidence, best = forbid(logits, mask).softmax(-1).max(-1)
        open_positions = [i for i in range(max(start, prompt_length), len(ids)) if ids[i] == mask]
        surest = max(open_positions, key=lambda i: (confidence[i - start].item(), -i))
        for position in open_positions:
            if position == surest or confidence[position - start] >= needed:
                ids[position] = int(best[position - start])
        known = ids[prompt_length:]
        known = known[: known.index(mask)] if mask in known else known
        new = known[len(tokens) :]
        if new:
            new, finish = finished(tokens, new, request, eos)
            tokens += new
        accepted.append(len(new))
    return Decoded(tokens, len(accepted), accepted, finish)


def _block_logits(
    model: PreTrainedModel, ids: list[int], cached: int, cache: DynamicCache, block_size: int
) -> torch.Tensor:
    """Logits (B, vocabulary) of the last block; the cache holds ``cached`` tokens."""
    positions = torch.arange(len(ids), device=model.device)
    blocks = positions // block_size
    hidden = model.base_model(
        input_ids=torch.tensor([ids[cached:]], device=model.device),
        position_ids=positions[None, cached:],
        attention_mask=(blocks[cached:, None] >= blocks)[None, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return model.get_output_embeddings()(hidden[0, -block_size:])
