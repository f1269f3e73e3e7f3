"""Block diffusion, the baseline of Table 2: BD3-LM (arXiv 2503.09573) on a causal model's weights.

The clean copy is causal over blocks and bidirectional inside them; a noisy block sees the clean
blocks before it and all of itself. Every response token is masked with probability t, t uniform
per document; a masked position predicts its own token, weighted 1/t.
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
) -> Stream:
    """Lay out one document: clean blocks that are needed as context, noisy blocks with a mask.

    A noisy block without a masked token predicts nothing and no other block sees it; nothing that
    predicts sees the clean tokens of the last noisy block, or what follows.

    Args:
        document: (L,) token ids, of which the first ``prompt_length``, P, are never masked.
        rate: the rate t that ``masked`` was drawn with.
        masked: (L - P,) which response tokens are masked.
    """
    everywhere = np.arange(len(document))
    block_of = everywhere // block_size
    hidden = np.concatenate([np.zeros(prompt_length, dtype=bool), masked])
    noisy = everywhere[np.isin(block_of, block_of[hidden])]
    clean = everywhere[: noisy[-1] // block_size * block_size] if len(noisy) else noisy
    labels = np.flatnonzero(hidden[noisy])
    shown = np.where(hidden, mask_token_id, document)
    block_starts = block_of * block_size
    block_ends = block_starts + block_size
    return Stream(
        tokens=np.concatenate([document[clean], shown[noisy]]),
        positions=np.concatenate([clean, noisy]),
        blocks=np.concatenate([np.full_like(clean, CLEAN), block_of[noisy]]),
        clean_limits=np.concatenate([block_ends[clean], block_starts[noisy]]),
        noisy_limits=np.concatenate([np.zeros_like(clean), block_ends[noisy]]),
        labels=len(clean) + labels,
        targets=document[noisy[labels]],
        ar_terms=np.zeros(len(labels)),
        mask_terms=np.full(len(labels), 1 / rate),
        size=len(document) - prompt_length,
    )
