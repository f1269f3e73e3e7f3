"""When a computation runs, is captured and is replayed; CUDA itself is played by stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from mars.decoding.gpu import Graphs

LOG: list[str] = []


class Graph:
    """Stands in for torch.cuda.CUDAGraph."""

    def replay(self) -> None:
        LOG.append("replay")


@contextmanager
def capture(graph: Graph, pool: Any) -> Iterator[None]:
    LOG.append(f"capture into {pool}")
    yield
    LOG.append("captured")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs[str]:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    LOG.clear()
    return Graphs("the memory")


def test_a_key_runs_and_is_captured_once_and_is_then_replayed(graphs: Graphs[str]) -> None:
    """After one pass over a workload nothing is left to capture: a warm-up pass is enough."""

    def compute(key: str) -> torch.Tensor:
        LOG.append(f"compute {key}")
        return torch.tensor(LOG.count(f"compute {key}"))

    first = [int(graphs.run(key, compute)) for key in ("one", "other")]
    assert first == [1, 1]  # what ran, not what was captured, which has not run
    once = ["capture into the memory"]
    assert [
        *("compute one", *once, "compute one", "captured"),
        *("compute other", *once, "compute other", "captured"),
    ] == LOG
    LOG.clear()
    again = [int(graphs.run(key, compute)) for key in ("other", "one", "one")]
    assert again == [2, 2, 2]  # the tensor that a replay fills
    assert LOG == ["replay"] * 3
