"""The device that is tried: what it is, and what its maker says it can do."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import torch
import transformers

from mars.machine.data_sheets import peaks


def the_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@cache
def describe(device: torch.device) -> dict[str, Any]:
    """Name, memory, and the peaks of the data sheet, or as measured for a GPU not listed here.

    Of a CPU only the name is said.
    """
    if device.type == "cpu":
        name, memory = f"CPU, {platform.machine()}", None
    else:
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    flops, bandwidth = peaks(name)
    if flops is None and device.type == "cuda":
        flops, bandwidth = measured_peaks(device)
    return {
        "name": name,
        "memory_bytes": memory,
        "peak_bfloat16_flops": flops,
        "memory_bandwidth": bandwidth,
    }


def measured_peaks(device: torch.device) -> tuple[float, float]:
    """What a large matrix product and a large copy reach, at best."""
    matrix = torch.ones(8192, 8192, dtype=torch.bfloat16, device=device)
    product, copy = torch.empty_like(matrix), torch.empty_like(matrix)
    multiplied = best_seconds(lambda: torch.mm(matrix, matrix, out=product))
    copied = best_seconds(lambda: copy.copy_(matrix))
    return 2 * 8192**3 / multiplied, 2 * matrix.nbytes / copied


def best_seconds(function: Callable[[], object]) -> float:
    """Of ten calls, each waited for."""
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = perf_counter()
        function()
        torch.cuda.synchronize()
        seconds.append(perf_counter() - start)
    return min(seconds)


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
