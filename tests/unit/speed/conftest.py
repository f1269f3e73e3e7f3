"""A little model whose outputs vary and end, and a workload for it."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from mars.speed.methods import Workload

MASK = 39


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=MASK + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        initializer_range=0.5,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():  # transformers' generate may say [MASK], our decoders may not
        model.get_output_embeddings().weight[MASK] = 0
    return model


@pytest.fixture
def work(model):
    prompts = [[(7 * row + 3 * place) % MASK for place in range(12 - row)] for row in range(5)]
    return Workload(model, prompts, 4, 24, frozenset([3, 5]), MASK)
