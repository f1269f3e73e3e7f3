"""The shape of the little random models that tests decode with, train and export."""

from __future__ import annotations

from typing import TypeVar

from transformers import PreTrainedConfig, Qwen2Config

ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)


def little_config(kind: type[ConfigT] = Qwen2Config, **changes: object) -> ConfigT:  # type: ignore[assignment]
    """Two layers, four query heads on two key-value heads, no special tokens; or as told."""
    shape: dict[str, object] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return kind(**shape | changes)
