"""What a processor computes fast, and how much of it a job has.

PyTorch is slow in bfloat16 without special instructions: a training then takes ten times as long as
in float32 and seems to hang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, ARM


def slow_bfloat16(key: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """A sentence about ``key``, which asks for bfloat16, if this CPU is slow at it, else None.

    ``ATEN_CPU_CAPABILITY`` may keep PyTorch from instructions that are there.
    """
    limited = environment.get("ATEN_CPU_CAPABILITY", "avx512") != "avx512"
    if _flags() & BFLOAT16_FLAGS and not limited:
        return None
    return (
        f"`{key}` is bfloat16, for which this processor has no instructions: on it this takes "
        "about ten times as long as float32; set it to float32, or use a GPU."
    )


def warn_of_slow_bfloat16(key: str) -> None:
    """Print that sentence, if there is one."""
    if sentence := slow_bfloat16(key):
        print(f"Note: {sentence}", file=sys.stderr, flush=True)


def threads_of_job(environment: Mapping[str, str] = os.environ) -> int:
    """Threads that the rule gave this job, in OMP_NUM_THREADS; 1 where nothing is said."""
    said = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list: per level
    return max(1, int(said)) if said.isdecimal() else 1


def _flags() -> set[str]:
    """What the processor can do, in the kernel's words; nothing if the kernel does not say."""
    text = CPUINFO.read_text() if CPUINFO.is_file() else ""
    lines = (line.partition(":") for line in text.splitlines())
    named = (value for name, _, value in lines if name.strip() in ("flags", "Features"))
    return set(next(named, "").split())
