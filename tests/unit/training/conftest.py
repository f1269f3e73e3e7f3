"""A tiny tokenizer, data set and model on disk, as the data preparation would leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mars.config.experiment import Training
from mars.training.trainer import train
from tests.support.small_training import make_settings, make_spec, write_dataset, write_tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings() -> Callable[..., Training]:
    """Training settings small enough for tests; keyword arguments change them."""
    return make_settings


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="session")
def parent(
    tokenizer_folder: Path, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint pre-trained for a few steps."""
    folder = tmp_path_factory.mktemp("models")
    train(
        make_spec("pretrain", make_settings()),
        parent=tokenizer_folder,
        dataset=dataset_folder,
        work=folder / "work",
        output=folder / "base",
    )
    return folder / "base"
