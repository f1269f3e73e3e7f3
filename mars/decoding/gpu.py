"""What makes decoding fast on a GPU: a compiled transformer, and CUDA graphs of whole steps.

Not yet run on a GPU. Tests on CPU show that the transformer compiles into one graph per kind of
shape and gives the same tokens, and that a step never waits for the host, as a graph requires.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

Key = TypeVar("Key")

KINDS_OF_SHAPE = 16
"""A row, a slot or a token alone is compiled apart from several of them; so is each model."""


class CompiledBackbone:
    """Calls the decoder stack compiled, or as it is once compiling has failed.

    Lengths and batch sizes are symbols to the compiler, so every prompt, window and engine shares
    the same few compilations. A failure (no compiler on the machine, say) costs speed only: what
    the failed forward left in the key-value cache, the repeated one overwrites.
    """

    def __init__(self, backbone: nn.Module, backend: str = "inductor"):
        self.plain = backbone
        self.call: Any = torch.compile(  # type: ignore[call-overload] # lacks recompile_limit
            backbone,
            backend=backend,
            dynamic=True,
            fullgraph=True,
            recompile_limit=KINDS_OF_SHAPE,
        )

    def __call__(self, **inputs: Any) -> Any:
        """What the decoder stack returns for these inputs."""
        if self.call is self.plain:
            return self.plain(**inputs)
        try:
            return self.call(**inputs)
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"torch.compile failed, decoding goes on without: {reason}", stacklevel=2)
            self.call = self.plain
            return self.plain(**inputs)


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
