"""Stand-ins for CUDA graphs: the same fixed shapes, and proof that a step never waits."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Fails where the host would have to wait for the device, as a CUDA graph capture would."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert operation not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return operation(*args, **(kwargs or {}))


class Eagerly:
    """In the place of :class:`mars.decoding.gpu.Graphs`; ``keys`` are those that it has met."""

    def __init__(self) -> None:
        self.keys: set[Any] = set()

    def run(self, key: Hashable, compute: Callable[[Any], Tensor]) -> Tensor:
        self.keys.add(key)
        with NoWaiting():
            return compute(key)
