"""These tests need a CUDA build of torch, but no GPU: `make test-cuda-trace` installs one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda_build() -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch is not a CUDA build: make test-cuda-trace has one of its own")
