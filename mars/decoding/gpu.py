"""What makes decoding fast on a GPU: a compiled transformer, and CUDA graphs of whole steps.

Not yet run on a GPU. Tests on CPU show that the transformer compiles into one graph per kind of
shape, that these graphs give the same tokens and copy no cache, and that a step never waits for
the host, as a CUDA graph requires. What only a GPU can show is that capturing and replaying work.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbols

Key = TypeVar("Key", bound=Hashable)

KINDS_OF_SHAPE = 64
"""Compilations per process: 4 for each model, as one row, or one token, is apart from several."""

UNCOMPILABLE: WeakSet[nn.Module] = WeakSet()
"""Transformers that failed to compile: no other engine need try them again."""


class CompiledBackbone:
    """Calls the decoder stack compiled, or as it is once compiling has failed.

    Lengths and batch sizes are symbols to the compiler, so every prompt, window and engine shares
    the same few compilations. A failure (no compiler on the machine, say, or more models than
    ``KINDS_OF_SHAPE`` has room for) costs speed only: what the failed forward left in the
    key-value cache, the repeated one overwrites.
    """

    def __init__(self, backbone: nn.Module, backend: Any = "inductor"):
        self.plain = backbone
        self.call: Any = backbone if backbone in UNCOMPILABLE else _compiled(backbone, backend)

    def __call__(self, **inputs: Any) -> Any:
        """What the decoder stack returns for these inputs."""
        if self.call is self.plain:
            return self.plain(**inputs)
        try:
            # Sizes that happen to be equal must not become one symbol: that they are would be
            # part of the kind of shape.
            with symbols.patch(use_duck_shape=False):  # type: ignore[attr-defined]
                return self.call(**inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what compilers raise has no base of its own
            reason = " ".join(str(error).split("\n")[:2])
            warnings.warn(
                f"torch.compile failed, decoding goes on without: {type(error).__name__}: {reason}",
                stacklevel=2,
            )
            UNCOMPILABLE.add(self.plain)
            self.call = self.plain
            return self.plain(**inputs)


def _compiled(backbone: nn.Module, backend: Any) -> Any:
    options: dict[str, Any] = {"backend": backend, "dynamic": True, "fullgraph": True}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # not in every version
        options["recompile_limit"] = KINDS_OF_SHAPE
    return torch.compile(backbone, **options)


class Graphs(Generic[Key]):
    """Replays a computation whose inputs and outputs live at fixed addresses.

    The first time a key is met its computation runs as usual, which compiles and warms up its
    kernels, and is then captured, which runs nothing; from then on it is replayed.

    Args:
        memory: what :func:`torch.cuda.graph_pool_handle` returned; graphs share one as long as no
            two of them run at the same time. None: one of its own.
    """

    def __init__(self, memory: Any = None) -> None:
        self.memory = torch.cuda.graph_pool_handle() if memory is None else memory
        self.captured: dict[Key, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, key: Key, compute: Callable[[Key], Tensor]) -> Tensor:
        """``compute(key)``, which may depend on ``key`` and on tensors updated in place only."""
        if key in self.captured:
            graph, output = self.captured[key]
            graph.replay()
            return output
        found = compute(key)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.memory):
            output = compute(key)
        self.captured[key] = graph, output
        return found
