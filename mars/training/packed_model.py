"""A causal language model that reads packed rows and returns the two losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from mars.training.losses import CPU_CHUNK, weighted_cross_entropy
from mars.training.packing import Rows

DENSE = "mars_dense"


class PackedModel(nn.Module):
    """Wraps any ``AutoModelForCausalLM`` of the Llama or Qwen2 architecture; adds no parameter.

    The loss is computed inside ``forward`` so that data-parallel wrappers see one module whose
    gradients are complete when its output is differentiated.
    """

    def __init__(
        self, model: PreTrainedModel, ar_weight: float, chunk_logits: int = CPU_CHUNK
    ) -> None:
        super().__init__()
        self.model = model
        self.ar_weight = ar_weight
        self.chunk_logits = chunk_logits

    def forward(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of the rows (equation 5), and (2,) AR loss and mask loss apart, detached.

        All three are shares of the optimiser step's losses: sum them over the step's rows.
        """
        hidden = self.model.base_model(
            input_ids=rows.tokens,
            position_ids=rows.positions,
            attention_mask=self._mask(rows),
            use_cache=False,
        ).last_hidden_state
        labelled = hidden.flatten(0, 1)[rows.labels]
        loss, losses = weighted_cross_entropy(
            labelled.to(self._compute_type(labelled.device)),
            self.model.get_output_embeddings().weight,
            rows.targets,
            self.ar_weight * rows.ar_weights + rows.mask_weights,
            chunk_logits=self.chunk_logits,
        )
        shares = torch.stack([rows.ar_weights, rows.mask_weights]).to(losses.dtype)
        return loss, (shares * losses).sum(1)  # autocast would make a product of matrices coarse

    def _mask(self, rows: Rows):  # type: ignore[no-untyped-def]
        """The attention mask in the form that the model's attention implementation reads."""
        implementation = self.model.config._attn_implementation
        if implementation == "flex_attention":
            return rows.flex_mask()
        if implementation == DENSE:
            return rows.additive_mask(self._compute_type(rows.tokens.device))
        return rows.dense_mask()

    def _compute_type(self, device: torch.device) -> torch.dtype:
        """Type of matrix products: autocast's, else that of the weights."""
        autocast = torch.is_autocast_enabled(device.type)
        return torch.get_autocast_dtype(device.type) if autocast else self.model.dtype


def dense_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with an explicit mask for CPUs, registered with transformers as ``mars_dense``.

    Two to three times as fast as PyTorch's fused kernel in bfloat16 on a CPU and than
    transformers' eager form: the products are plain matrix products in the type of autocast, the
    key and value heads are not repeated, and the scores stay in one type, that of the mask. Its
    memory is quadratic in the row.

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
