"""A model spread over all processes (FSDP2): each holds a share of every parameter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mars.training.layers import decoder_layers
from mars.training.packed_model import PackedModel


def shard(
    packed: PackedModel, device: torch.device, precision: Literal["float32", "bfloat16"]
) -> None:
    """Spread a model over the processes, layer by layer; the weights are those of process 0.

    The others need no weights: their parameters may be on meta. A process never holds more whole
    parameters on its device than those of a layer, or of all that is in no layer.

    Parameters stay float32. They are gathered as ``precision``, which is the type of the products
    and of what passes between layers; gradients are summed over processes, and kept, in float32.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    compute = torch.bfloat16 if precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(
        param_dtype=compute,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # it would round the weights of the labels
    )
    for layer in decoder_layers(packed.model):
        _take_from_first(layer, device)
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    _take_from_first(packed, device)
    # One group for embeddings, norm and head: the loss reads the head outside its module, and a
    # head that is tied to the embeddings may not be in another group than they.
    fully_shard(packed, mesh=mesh, mp_policy=replace(policy, output_dtype=torch.float32))


def _take_from_first(module: nn.Module, device: torch.device) -> None:
    """Give the module's whole parameters and buffers the values of process 0, on the device."""
    taken: dict[torch.Tensor, torch.Tensor] = {}  # what is tied stays tied
    for part in module.modules():
        places: list[dict[str, Any]] = [part._parameters, part._buffers]
        for tensors in places:
            for name, tensor in tensors.items():
                if tensor is None or isinstance(tensor, DTensor):
                    continue
                if tensor not in taken:
                    first = dist.get_rank() == 0
                    value = tensor.detach()
                    value = value.to(device) if first else torch.empty_like(value, device=device)
                    dist.broadcast(value, src=0)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    taken[tensor] = nn.Parameter(value) if is_parameter else value
                tensors[name] = taken[tensor]
