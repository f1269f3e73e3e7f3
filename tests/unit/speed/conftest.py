"""A little model whose outputs vary and end, and a workload for it."""

import pytest
import torch
from transformers import Qwen2ForCausalLM

from mars.speed.methods import Workload
from tests.support.little_models import little_config

MASK = 39


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    config = little_config(vocab_size=MASK + 1, tie_word_embeddings=False, initializer_range=0.5)
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():  # transformers' generate may say [MASK], our decoders may not
        model.get_output_embeddings().weight[MASK] = 0
    return model


@pytest.fixture
def workload(model):
    prompts = [[(7 * row + 3 * place) % MASK for place in range(12 - row)] for row in range(5)]
    return Workload(model, prompts, 4, 24, frozenset([3, 5]), MASK)
