"""These tests need a CUDA build of torch, but no GPU: `make test-cuda-trace` installs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cuda_trace)


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch is not a CUDA build: make test-cuda-trace has one of its own")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
