"""The device that is tried: what it is, and what its maker says it can do."""

from __future__ import annotations

import platform
import re
import subprocess
from typing import Any

import torch
import transformers

# Dense bfloat16 operations and bytes of memory per second, from NVIDIA's data sheets. The first
# entry whose words are all in the device's name counts.
DATA_SHEETS = [
    (("H200",), 989e12, 4.8e12),
    (("H100", "PCIe"), 756e12, 2.0e12),
    (("H100", "NVL"), 835e12, 3.9e12),
    (("H100",), 989e12, 3.35e12),
    (("A100", "PCIE-40GB"), 312e12, 1.555e12),
    (("A100", "SXM4-40GB"), 312e12, 1.555e12),
    (("A100", "PCIe", "80GB"), 312e12, 1.935e12),
    (("A100",), 312e12, 2.039e12),
    (("L40S",), 362e12, 0.864e12),
    (("RTX 4090",), 165e12, 1.008e12),
    (("RTX 3090",), 71e12, 0.936e12),
    (("L4",), 121e12, 0.3e12),
    (("A10",), 125e12, 0.6e12),
]


def the_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def describe(device: torch.device) -> dict[str, Any]:
    """Name, memory, and the data sheet's peaks; None where they are not known."""
    if device.type == "cpu":
        name, memory = f"CPU, {platform.machine()}", None
    else:
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    flops, bandwidth = peaks(name)
    return {
        "name": name,
        "memory_bytes": memory,
        "peak_bfloat16_flops": flops,
        "memory_bandwidth": bandwidth,
    }


def peaks(name: str) -> tuple[float | None, float | None]:
    """Operations in bfloat16 and bytes of memory per second of the device of this name."""
    for words, flops, bandwidth in DATA_SHEETS:
        if all(re.search(rf"\b{word}\b", name) for word in words):
            return flops, bandwidth
    return None, None


def slug(name: str) -> str:
    """The name as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def versions() -> dict[str, str | None]:
    """Of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def commit() -> str | None:
    """Of this project, with a plus where files differ from it."""
    head = _said("git", "rev-parse", "HEAD")
    return f"{head}+" if head and _said("git", "status", "--porcelain", "mars", "tests") else head


def _said(*command: str) -> str | None:
    """The first line a program prints, if it is here and works and prints one."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(answer.splitlines()), None)
