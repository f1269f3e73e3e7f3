"""CUDA graphs of the engine's steps, one per shape.

Not yet run on a GPU: written against PyTorch's interface, and the condition it rests on (a step
that never waits for the host) is tested on CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


class Graphs(Generic[Key]):
    """Replays a computation whose inputs and outputs live at fixed addresses.

    The first time a shape is met it runs as usual, which compiles and warms up its kernels; the
    second time it is captured; from then on it is replayed. All graphs share one memory pool.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.seen: set[Key] = set()
        self.captured: dict[Key, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, key: Key, compute: Callable[[Key], Tensor]) -> Tensor:
        """``compute(key)``, which may depend on ``key`` and on tensors updated in place only."""
        if key not in self.seen:
            self.seen.add(key)
            return compute(key)
        if key not in self.captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                output = compute(key)
            self.captured[key] = graph, output
        graph, output = self.captured[key]
        graph.replay()
        return output
