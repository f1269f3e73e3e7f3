"""Block diffusion, the baseline of Table 2: BD3-LM (arXiv 2503.09573) on a causal model's weights.

The clean copy is causal over blocks and bidirectional inside them; a noisy block sees the clean
blocks before it and all of itself. Every response token is masked with probability t, t uniform
per document; masked tokens are predicted, weighted 1/t.

With ``right_shift``, as published, noisy position j predicts token j+1, as in the causal model that
the weights come from; a block's first token is predicted by the last position of the noisy block
before it (docs/differences.md, C1). Without it a masked position predicts its own token, as in the
paper of BD3-LM, which turns every output of a causal model into another one.
"""

from __future__ import annotations

import numpy as np

from mars.training.dual_stream import CLEAN, Stream

SMALLEST_RATE = 1e-3  # bounds the weight 1/t


def block_diffusion_stream(
    document: np.ndarray,
    prompt_length: int,
    *,
    block_size: int,
    mask_token_id: int,
    rate: float,
    masked: np.ndarray,
    right_shift: bool = True,
) -> Stream:
    """Lay out one document: the clean blocks that are needed, noisy blocks with a mask.

    A noisy block without a masked token is its clean block (by induction over the layers), so the
    clean token plays its part. What predicts nothing, and is seen by nothing that does, is left
    out.

    Args:
        document: (L,) token ids, of which the first ``prompt_length``, P, are never masked.
        rate: the rate t that ``masked`` was drawn with.
        masked: (L - P,) which response tokens are masked. The first token of a document, which
            nothing can predict when logits are shifted, stays visible then.
    """
    everywhere = np.arange(len(document))
    block_of = everywhere // block_size
    hidden = np.concatenate([np.zeros(prompt_length, dtype=bool), masked])
    if right_shift:
        hidden[0] = False
    targets = np.flatnonzero(hidden)
    sources = targets - 1 if right_shift else targets  # the positions that predict them
    from_noisy = np.isin(block_of[sources], block_of[hidden])
    noisy = everywhere[np.isin(block_of, block_of[sources[from_noisy]])]
    context = noisy[-1] // block_size if len(noisy) else 0  # clean blocks that the noisy ones see
    predicting = block_of[sources[~from_noisy]].max(initial=-1) + 1
    clean = everywhere[: max(context, predicting) * block_size]
    labels = np.where(from_noisy, len(clean) + np.searchsorted(noisy, sources), sources)
    shown = np.where(hidden, mask_token_id, document)
    block_starts = block_of * block_size
    block_ends = block_starts + block_size
    return Stream(
        tokens=np.concatenate([document[clean], shown[noisy]]),
        positions=np.concatenate([clean, noisy]),
        blocks=np.concatenate([np.full_like(clean, CLEAN), block_of[noisy]]),
        clean_limits=np.concatenate([block_ends[clean], block_starts[noisy]]),
        noisy_limits=np.concatenate([np.zeros_like(clean), block_ends[noisy]]),
        labels=labels,
        targets=document[targets],
        ar_terms=np.zeros(len(targets)),
        mask_terms=np.full(len(targets), 1 / rate),
        size=len(document) - (max(prompt_length, 1) if right_shift else prompt_length),
    )
