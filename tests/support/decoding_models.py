"""Random little models with diverse outputs and confidences all over the scale."""

from __future__ import annotations

import random
from functools import cache

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.support.little_models import little_config

VOCABULARY = 40
MASK = VOCABULARY - 1
EOS = (3, 5)


@cache
def random_model(
    architecture: str, seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 2
) -> PreTrainedModel:
    """A model with four query heads on two key-value heads."""
    torch.manual_seed(seed)
    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[architecture]
    config = little_config(
        config_class,
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    model = model_class(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.5)
    return model.to(dtype)


def prompts(count: int, seed: int = 0, shortest: int = 1, longest: int = 60) -> list[list[int]]:
    """Random prompts without mask tokens, of random lengths."""
    draw = random.Random(seed)
    return [
        [draw.randrange(VOCABULARY - 1) for _ in range(draw.randint(shortest, longest))]
        for _ in range(count)
    ]
