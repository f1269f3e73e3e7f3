"""A miniature hub, a small tokenizer and model, and models that know the answers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

from mars.config.experiment import Benchmark
from mars.data.minibench.generate import generate
from mars.data.tokenizer import train_tokenizer
from tests.support.little_models import little_config
from tests.support.small_benchmarks import BENCHMARKS, SIZES


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """The six miniature benchmarks in hub layout."""
    folder = tmp_path_factory.mktemp("hub")
    generate(SIZES, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Q: how many? A: the answer is 3. Question: Options:"], 300, folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def model(tokenizer):
    """Random weights, sharpened so that greedy decoding is not a coin toss."""
    torch.manual_seed(0)
    config = little_config(
        vocab_size=len(tokenizer),
        intermediate_size=64,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="session")
def checkpoint(model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def benchmarks() -> dict:
    """Checked sections of an experiment, complete with defaults."""
    return {
        name: Benchmark.model_validate({**value, "title": name})
        for name, value in BENCHMARKS.items()
    }
