"""Little models in folders as vLLM reads them, with as many rows of embeddings as real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mars.checkpoints.load import multi_token
from tests.support.decoding_models import EOS
from tests.support.little_checkpoint import character_tokenizer

ROWS_OF_05B, ROWS_OF_7B = 151936, 152064  # of embeddings of Qwen2.5


def little_model(
    rows: int = 64, kind: str = "qwen2", head: int = 32, **config: Any
) -> PreTrainedModel:
    """Random weights, biases among them, from a fixed seed: two layers, two heads of a width."""
    shape = {
        "vocab_size": rows,
        "hidden_size": 2 * head,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        **config,
    }
    torch.manual_seed(0)
    if kind == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.eval()


def write_model(
    folder: Path, model: PreTrainedModel, block_size: int | None = None, **save: Any
) -> Path:
    """Save a model with the tokenizer of a few characters; with a block size it is one of MARS."""
    tokenizer = character_tokenizer()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=list(EOS), **multi_token(tokenizer, block_size)
    )
    model.save_pretrained(folder, **save)
    tokenizer.save_pretrained(folder)
    return folder
