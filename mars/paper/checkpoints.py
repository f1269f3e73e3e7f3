"""What a checkpoint is to who loads it: its tensors, their parameters, its configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mars.files import read_json

# Of config.json: what says how the model was saved, not what it is.
_OF_THE_FILE = ("_name_or_path", "transformers_version", "auto_map", "dtype", "torch_dtype")


def describe(folder: Path) -> dict[str, Any]:
    """Parameters, shapes of the tensors and configuration of a checkpoint.

    Args:
        folder: a checkpoint in safetensors format; only the files' headers are read.
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        header = _header(file)
        shapes |= {name: entry["shape"] for name, entry in header.items() if "shape" in entry}
    config = read_json(Path(folder) / "config.json")
    return {
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "tensors": shapes,
        "config": {
            "class": ", ".join(config["architectures"]),
            **{key: value for key, value in config.items() if key not in _OF_THE_FILE},
        },
    }


def _header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: eight bytes of its length, then itself."""
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(length))
