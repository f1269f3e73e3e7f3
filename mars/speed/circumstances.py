"""What a record of a measurement says of the machine, the software and the command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from mars.provenance.files import sha256_file
from mars.provenance.record import hardware, versions

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def circumstances(command: str) -> dict[str, Any]:
    """Hardware, versions and command, to be written into every record."""
    return {
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "command": command,
        "gpu_driver": gpu_driver(),
    }


def weights_of(checkpoint: Path) -> dict[str, str]:
    """sha256 of the weights that are decoded with, by file."""
    return {path.name: sha256_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}


def gpu_driver() -> str | None:
    """Version of the GPU's driver and of CUDA; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, CUDA {torch.version.cuda}"
    return f"{answer.splitlines()[0].strip()}, CUDA {torch.version.cuda}"
