"""A causal language model that reads packed rows and returns the two losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from mars.training.dense_attention import DENSE
from mars.training.losses import weighted_cross_entropy
from mars.training.packing import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedModel(nn.Module):
    """Wraps any Llama- or Qwen2-architecture ``AutoModelForCausalLM``; adds no parameter.

    The loss is computed inside ``forward`` so that data-parallel wrappers see one module whose
    gradients are complete when its output is differentiated.
    """

    def __init__(self, model: PreTrainedModel, ar_weight: float) -> None:
        super().__init__()
        self.model = model
        self.ar_weight = ar_weight

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
        )
        shares = torch.stack([rows.ar_weights, rows.mask_weights]).to(losses.dtype)
        return loss, shares @ losses

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
