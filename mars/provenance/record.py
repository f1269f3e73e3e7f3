"""The record of one job: what went in, what came out, made by what, where and when."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mars.provenance.files import canonical_json, read_json, sha256_file, sha256_text, write_json
from mars.provenance.fingerprint import project
from mars.provenance.manifest import size_with_manifest, write_manifest
from mars.provenance.stage import Job, Stage

# Variables that decide in which order sums are added, so how they are rounded.
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"),
)
# What results are computed from; an edit elsewhere makes no commit another one.
COMPUTES = ("mars", "workflow", "config", "Snakefile", "requirements.lock")


def run_recorded(stage: Stage[Any], job: Job, record: Path) -> None:
    """Run a job and, if it succeeds, write its manifest, if it made a folder, and its record.

    Nothing is written when the job fails, so a record always describes finished outputs. Of the
    processes of one training only the first writes either.
    """
    first = os.environ.get("RANK", "0") == "0"
    started = datetime.now(UTC)
    used = job.inputs.sha256 if first else {}
    # The code as it is now: it may have been edited since the spec was made.
    modules = stage.reached.modules
    made = stage.start(job)
    if not first:
        return
    files = made if isinstance(made, list) else [write_manifest(job.output, **(made or {}))]
    write_json(
        record,
        sealed(
            {
                "outputs": {str(path): sha256_file(path) for path in files},
                "output_bytes": sum(map(size_with_manifest, files)),
                "inputs": used,
                "spec": job.spec.model_dump(),
                "facts": made if isinstance(made, dict) else {},
                "command": shlex.join(["mars", *sys.argv[1:]]),
                "started": started.isoformat(timespec="seconds"),
                "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "code": {**git_state(), "modules": modules},
                "environment": versions(stage.locked),
                "hardware": hardware(),
                "arithmetic": arithmetic(),
            }
        ),
    )
    shutil.rmtree(job.work, ignore_errors=True)  # nothing is left to resume


def read_record(path: Path) -> dict[str, Any]:
    """A record written by :func:`recorded`."""
    return read_json(path)


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the hash of all its other content, so that an edit is noticed."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return {**content, "sha256": sha256_text(canonical_json(content))}


def is_sealed(record: dict[str, Any]) -> bool:
    """Whether the record is as it was written."""
    return record == sealed(record)


def hardware() -> dict[str, Any]:
    """Processor, cores in use, memory and GPUs of this machine."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [],
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    torch = sys.modules.get("torch")  # a stage without torch has no GPU to name
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
    return found


def arithmetic() -> dict[str, Any]:
    """What rounding hangs on beside the machine: variables, threads and vector instructions."""
    found: dict[str, Any] = {
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ}
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def _processor() -> str:
    """The processor's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of packages, as installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of the project's checkout, and whether the code differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(project()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *COMPUTES)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
