"""A tokenizer, a data set and settings small enough to train in a second, without any download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import Qwen2Tokenizer

from mars.config.experiment import Architecture, Training
from mars.training.stage import TrainSpec

VOCABULARY = 48
EOS, MASK, PAD = 0, 1, 2
ARCHITECTURE = Architecture(
    hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=48, max_positions=256
)


def make_settings(**changes: object) -> Training:
    """Training settings; keyword arguments change them."""
    values: dict[str, object] = {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 6,
        "row_length": 64,
        "rows_per_forward": 2,
        "precision": "float32",
    }
    return Training.model_validate({**values, **changes})


def make_spec(method: str, training: Training, **changes: object) -> TrainSpec:
    """What to train; keyword arguments change it."""
    values: dict[str, object] = {
        "block_size": 4 if method in ("mars", "block_diffusion") else None,
        "ar_weight": 1.0 if method == "mars" else None,
        "architecture": ARCHITECTURE if method == "pretrain" else None,
    }
    return TrainSpec.model_validate({"method": method, "training": training, **values, **changes})


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer whose token i is the word `wi`, and nothing else."""
    names = {EOS: "<|im_end|>", MASK: "<|mask|>", PAD: "<|endoftext|>"}
    tokenizer = Qwen2Tokenizer(
        vocab={names.get(i, f"w{i}"): i for i in range(VOCABULARY)},
        eos_token=names[EOS],
        mask_token=names[MASK],
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def write_dataset(folder: Path) -> Path:
    """50 documents of 8 to 40 tokens that count upwards from a random word, with prompts."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(50):
        length = int(generator.integers(8, 40))
        start = int(generator.integers(VOCABULARY - 3))
        tokens = [3 + (start + i) % (VOCABULARY - 3) for i in range(length - 1)] + [EOS]
        rows.append({"input_ids": tokens, "prompt_length": int(generator.integers(1, length - 2))})
    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder
