"""A tiny tokenizer, data set and model on disk, as the data preparation would leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Qwen2Tokenizer

from mars.config import Architecture, Training
from mars.training import train

torch.set_num_threads(1)

VOCABULARY = 48
EOS, MASK = 0, 1
ARCHITECTURE = Architecture(
    hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, max_positions=256
)


def make_settings(**changes: object) -> Training:
    """Training settings small enough for tests."""
    values: dict[str, object] = {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 6,
        "row_length": 64,
        "rows_per_forward": 2,
        "precision": "float32",
    }
    return Training.model_validate({**values, **changes})


@pytest.fixture(scope="session")
def settings() -> Callable[..., Training]:
    """Training settings small enough for tests; keyword arguments change them."""
    return make_settings


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only a tokenizer: token i is the word `wi`."""
    names = {EOS: "<|im_end|>", MASK: "<|mask|>", 2: "<|endoftext|>"}
    tokenizer = Qwen2Tokenizer(
        vocab={names.get(i, f"w{i}"): i for i in range(VOCABULARY)},
        eos_token="<|im_end|>",
        mask_token="<|mask|>",
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 documents of 8 to 40 tokens that count upwards from a random word, with prompts."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(50):
        length = int(generator.integers(8, 40))
        start = int(generator.integers(VOCABULARY - 3))
        tokens = [3 + (start + i) % (VOCABULARY - 3) for i in range(length - 1)] + [EOS]
        rows.append({"input_ids": tokens, "prompt_length": int(generator.integers(1, length - 2))})
    folder = tmp_path_factory.mktemp("data") / "dataset"
    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="session")
def parent(
    tokenizer_folder: Path, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint pre-trained for a few steps."""
    folder = tmp_path_factory.mktemp("models")
    train(
        method="pretrain",
        training=make_settings(),
        block_size=None,
        ar_weight=1.0,
        parent=tokenizer_folder,
        dataset=dataset_folder,
        work=folder / "work",
        output=folder / "base",
        architecture=ARCHITECTURE,
    )
    return folder / "base"
