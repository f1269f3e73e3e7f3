"""What may be done to a model's layers before training: memory against time, the result unchanged.

Each replaces the ``forward`` of every decoder layer, so that names of parameters stay and the hooks
with which FSDP gathers a layer's parameters run around it, not inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> Iterable[nn.Module]:
    """The layers of a model of the Llama or Qwen2 architecture."""
    return cast(nn.ModuleList, model.base_model.layers)


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile each layer, all to the same code; to be called before :func:`checkpoint_layers`.

    A second length of rows makes lengths symbols to the compiler, so that there are few versions.
    """
    for layer in decoder_layers(model):
        layer.forward = torch.compile(layer.forward, backend=backend)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep of each layer what enters it, and compute the rest again in the backward pass.

    Nothing in a layer is drawn at random, so there is no random state to restore.
    """
    for layer in decoder_layers(model):
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
        )
