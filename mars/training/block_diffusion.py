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

    A noisy block without a masked token predicts nothing and is seen by no other block; the clean
    tokens of the last noisy block, and what follows, are seen by nothing that predicts.

    Args:
        document: (L,) token ids.
        prompt_length: leading tokens P, never masked.
        block_size: tokens B of one block.
        mask_token_id: id of [MASK].
        rate: the rate t that ``masked`` was drawn with.
        masked: (L - P,) which response tokens are masked.
    """
    everywhere = np.arange(len(document))
    block_of = everywhere // block_size
    hidden = np.concatenate([np.zeros(prompt_length, dtype=bool), masked])
    noisy = everywhere[np.isin(block_of, block_of[hidden])]
    clean = everywhere[: noisy[-1] // block_size * block_size] if len(noisy) else noisy
    labels = np.flatnonzero(hidden[noisy])
    return Stream(
        tokens=np.concatenate(
            [document[clean], np.where(hidden[noisy], mask_token_id, document[noisy])]
        ),
        positions=np.concatenate([clean, noisy]),
        blocks=np.concatenate([np.full_like(clean, CLEAN), block_of[noisy]]),
        clean_limits=np.concatenate(
            [(block_of[clean] + 1) * block_size, block_of[noisy] * block_size]
        ),
        noisy_limits=np.concatenate([np.zeros_like(clean), (block_of[noisy] + 1) * block_size]),
        labels=len(clean) + labels,
        targets=document[noisy[labels]],
        ar_terms=np.zeros(len(labels)),
        mask_terms=np.full(len(labels), 1 / rate),
        size=len(document) - prompt_length,
    )
