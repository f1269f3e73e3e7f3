"""Tries this project on the GPU of this machine: python -m tests.gpu (or make test-gpu).

Whether every decoder, the attention kernels and a training step do what they do on a CPU, and how
fast they are. Takes at most ten minutes. Ends in a table and a file in results/gpu, to be
committed. Without a GPU it tries what a CPU can, says what it left out, and keeps no file.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Timer
from time import monotonic

import torch

from tests.gpu import decoding_speed, exactness, training, training_speed
from tests.gpu.device import the_device
from tests.gpu.part import BEGUN, Part, Row, note, print_begun, print_row, row_of
from tests.gpu.result import Result

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 10.0
START = 12.0  # seconds until a part has imported torch and woken the GPU
Runs = Callable[[Part], None]
Take = Callable[[str, Row], None]

# Each with its share of the time, in the order of what one wants to know first. What a part leaves
# unused is the next one's.
GPU_PARTS: dict[str, tuple[float, Runs]] = {
    "exactness": (0.14, exactness.run),
    "training step": (0.12, training.run),
    "decoding 0.5B": (0.14, partial(decoding_speed.run, shape="0.5B")),
    "training 0.5B": (0.17, partial(training_speed.run, shape="0.5B")),
    "decoding 7B": (0.16, partial(decoding_speed.run, shape="7B")),
    "training 7B": (0.15, partial(training_speed.run, shape="7B")),
    "static cache, 0.5B": (0.04, partial(decoding_speed.run, shape="0.5B", static=True)),
    "compiling, 0.5B": (0.08, partial(decoding_speed.run_compiled, shape="0.5B")),
}
CPU_PARTS: dict[str, tuple[float, Runs]] = {
    "exactness": (0.5, exactness.run),
    "training step": (0.2, training.run),
    "decoding": (0.2, partial(decoding_speed.run, shape="tiny")),
    "training": (0.1, partial(training_speed.run, shape="tiny")),
}
GPU_ONLY = "the shapes of 0.5B and 7B"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts, or with ``--part`` one of them; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--output", type=Path, help="folder of the result; default results/gpu")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    device = the_device()
    parts = GPU_PARTS
    if device.type == "cpu":
        parts = CPU_PARTS
        torch.set_num_threads(1)  # for models this small, several only wait for each other
    if options.part:
        parts[options.part][1](Part(options.part, device, options.seconds, print_row, print_begun))
        return 0
    result = Result(
        device, options.output or (ROOT / "results/gpu" if parts is GPU_PARTS else None)
    )
    note(f"{result.content['device']['name']}: at most {options.minutes:g} minutes")
    run_all(parts, result, device, 60 * options.minutes - START)
    if device.type == "cpu":
        detail = "there is no GPU here, or this torch has no CUDA"
        result.add("checks", {"name": GPU_ONLY, "status": "skipped", "detail": detail})
    print(result.table())
    if result.path is not None:
        print(f"\nWritten to {result.path}")
    return 1 if result.with_status("failed") else 0


def run_all(
    parts: dict[str, tuple[float, Runs]], result: Result, device: torch.device, seconds: float
) -> None:
    """Every part until its time: on a GPU as a process, which a fault of the GPU ends, alone."""

    def take(section: str, row: Row) -> None:
        if section == "checks":
            note(f"{row['status']:8}{row['name']}: {row['detail']}")
        result.add(section, row)

    start, share = monotonic(), 0.0
    for name, (fraction, run) in parts.items():
        share += fraction
        left = max(start + share * seconds - monotonic(), 0)
        if device.type == "cpu":
            run(Part(name, device, left, take))
        else:
            command = [sys.executable, "-m", "tests.gpu", "--part", name]
            command += ["--seconds", f"{max(left - START, 0):.0f}"]
            if (trouble := run_part(command, left, take)) is not None:
                row = {"name": name, "status": "failed", "detail": trouble}
                take("checks", row)


def run_part(command: Sequence[str], seconds: float, take: Take) -> str | None:
    """Take the rows of a process as they come; what was wrong with it, if something was.

    It is killed after ``seconds``; its rows stay.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # with the compiler's processes, which would keep its output open
    ) as process:
        timer = Timer(max(seconds, 0), lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.start()
        last = begun = ""
        assert process.stdout is not None
        for line in process.stdout:
            if (found := row_of(line)) is not None:
                section, row = found
                begun = f" ({row['name']})" if section == BEGUN else ""
                if not begun:
                    take(section, row)
            elif line.strip():
                last = line.strip()
        killed = not timer.is_alive()
        timer.cancel()
    if process.returncode == 0:
        return None
    if killed:
        return f"stopped{begun} after {seconds:.0f} s, its share of the time; no rows from there on"
    return f"ended with {process.returncode}: {last}"


if __name__ == "__main__":
    sys.exit(main())
