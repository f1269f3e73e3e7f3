"""A model with narrow attention heads as a Llama with wide ones, which computes the same.

vLLM's attention on a CPU has no kernel for the heads of 16 that this project's small models have.
Zeros between the dimensions of a head change nothing: with three behind each, dimension i becomes
4i, which the rotary embedding of a head four times as wide turns by the same angles, and doubled
queries make up for the scores being divided by the root of that width. Nothing is rounded.
"""

from __future__ import annotations

from typing import Any

import torch

from mars.errors import UserError

NARROWEST = 32  # of the heads that vLLM's attention on a CPU computes
STRIDE = 4  # of the dimensions kept: its root is 2, and times 2 is exact

Tensors = dict[str, torch.Tensor]


def head_width(config: dict[str, Any]) -> int:
    """Width of an attention head, by ``config.json``."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def has_narrow_heads(config: dict[str, Any]) -> bool:
    """Whether vLLM's attention on a CPU cannot compute this model as it is."""
    return head_width(config) < NARROWEST


def widened_config(config: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of the Llama with wide heads.

    Raises:
        UserError: the model is neither Qwen2 nor Llama, or its attention looks back only so far.
    """
    if config["model_type"] not in ("qwen2", "llama") or config.get("use_sliding_window"):
        raise UserError(
            f"heads of {head_width(config)} are too narrow for vLLM on a CPU, and only those of "
            "Qwen2 and Llama models with full attention can be widened."
        )
    of_qwen2 = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
    kept = {key: value for key, value in config.items() if key not in of_qwen2}
    has_bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)
    return kept | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": has_bias,
        "head_dim": STRIDE * head_width(config),
    }


def widened(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """The tensors of a model, or some of them, as those of the Llama with wide heads.

    Args:
        config: of the model as it was.
    """
    if STRIDE * head_width(config) < NARROWEST:
        raise UserError(f"heads of {head_width(config)} are too narrow for vLLM on a CPU.")
    found: Tensors = {}
    for name, tensor in tensors.items():
        part = name.rpartition("self_attn.")[2]
        match part.split("."):
            case ["q_proj", _]:
                found[name] = _spread(tensor * 2, 0)
            case ["k_proj" | "v_proj", _]:
                found[name] = _spread(tensor, 0)
            case ["o_proj", "weight"]:
                found[name] = _spread(tensor, 1)
                # A Qwen2 has no bias here; a Llama that has any has one.
                if config["model_type"] == "qwen2":
                    bias = name.removesuffix("weight") + "bias"
                    found[bias] = torch.zeros(len(tensor), dtype=tensor.dtype)
            case _:
                found[name] = tensor
    return found


def _spread(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Zeros behind each entry of a dimension: [a, b] -> [a, 0, 0, 0, b, 0, 0, 0]."""
    shape = list(tensor.shape)
    shape[dim] *= STRIDE
    spread = tensor.new_zeros(shape)
    spread[(slice(None),) * dim + (slice(None, None, STRIDE),)] = tensor
    return spread
