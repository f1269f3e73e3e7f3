"""The GPUs of a job: no device is given to two jobs at a time.

Snakemake counts GPUs, but does not say which one a job may use. ``mars with-gpus`` does: it waits
for the number of devices asked for, locks a file for each, sets CUDA_VISIBLE_DEVICES and turns
into the command. The locks are the kernel's and end with the process, killed or not.

A scheduler assigns devices itself, in CUDA_VISIBLE_DEVICES. Then only these are given out, and
the locks are per Slurm job, since two jobs on one node may both call their device 0. So the same
command works in a job of its own and for many jobs inside one large allocation.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from mars.errors import UserError

POLL_SECONDS = 0.2
NO_DEVICE = {"", "-1", "NoDevFiles"}  # how CUDA_VISIBLE_DEVICES says that there is none


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The devices that may be used: those of CUDA_VISIBLE_DEVICES, else all of the machine."""
    assigned = environment.get("CUDA_VISIBLE_DEVICES")
    if assigned is not None:
        return [device for device in map(str.strip, assigned.split(",")) if device not in NO_DEVICE]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]  # in the order of the bus
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


def lock_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the locks of this user are; those of a Slurm job are its own."""
    scope = environment.get("SLURM_JOB_ID", "machine")
    return Path(tempfile.gettempdir(), f"mars-gpus-{os.getuid()}", scope)


def take(count: int, pool: Sequence[str], folder: Path) -> list[str]:
    """Wait for ``count`` devices of the pool and keep them until this process ends.

    The locks pass to the program that this process turns into (``exec``), not to its children.
    Waiting processes are served one after the other, so that one that needs many devices is not
    overtaken forever by those that need one. Returns the devices in the pool's order.
    """
    if count > len(pool):
        raise UserError(f"{count} GPUs are wanted and there are {len(pool)}; ask for fewer.")
    folder.mkdir(parents=True, exist_ok=True)
    held: set[str] = set()
    with open(folder / "queue", "w") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        while True:
            for device in pool:
                if len(held) < count and device not in held and _lock(folder, device):
                    held.add(device)
            if len(held) == count:
                return [device for device in pool if device in held]
            time.sleep(POLL_SECONDS)


def _lock(folder: Path, device: str) -> bool:
    """Lock a device if it is free; the open file stays with this process."""
    descriptor = os.open(folder / f"gpu-{quote(device, safe='')}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.set_inheritable(descriptor, True)
    return True


def launch_command(verb: Sequence[str], gpus: int) -> list[str]:
    """How to start ``mars <verb>``: on several GPUs, as only trainings ask for, a process each."""
    mars = ["-m", "mars", *verb]
    if gpus < 2:
        return [sys.executable, *mars]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
    return [sys.executable, "-m", *launcher, *mars]


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that started it has ended (Linux).

    The launcher holds the lock. Without this, its processes would outlive it when it is killed,
    and keep using the devices and writing checkpoints beside the run that takes its place.
    """
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def run_with_gpus(verb: Sequence[str], count: int) -> None:
    """Turn into ``mars <verb>`` with ``count`` GPUs, fewer if there are fewer.

    Returns without any GPU, or for a count of 0: the verb then runs as it would by itself.
    """
    pool = visible_gpus() if count else []
    count = min(count, len(pool))
    if not count:
        return
    devices = take(count, pool, lock_folder())
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)}
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # nvidia-smi's order
    print(f"GPUs: {', '.join(devices)}", file=sys.stderr, flush=True)
    command = launch_command(verb, count)
    os.execve(command[0], command, environment)
