"""What a checkpoint is to whoever loads it: its tensors, their parameters, its configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mars.provenance.files import read_json

# Keys of config.json that say how the model was saved, not what it is.
_OF_THE_FILE = ("_name_or_path", "transformers_version", "auto_map", "dtype", "torch_dtype")


def describe(folder: Path) -> dict[str, Any]:
    """Parameters, shapes of the tensors and configuration of a checkpoint.

    Args:
        folder: a checkpoint in safetensors format; only the files' headers are read.
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            names = tensors.keys()
            shapes |= {name: tensors.get_slice(name).get_shape() for name in names}
    config = read_json(Path(folder) / "config.json")
    return {
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": shapes,
        "config": {
            "class": ", ".join(config["architectures"]),
            **{key: value for key, value in config.items() if key not in _OF_THE_FILE},
        },
    }
