"""The transformer of a model through torch.compile, for decoders on a GPU.

Not yet run on a GPU: that it compiles into one graph per kind of shape, and gives the same
tokens, is tested on CPU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

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
