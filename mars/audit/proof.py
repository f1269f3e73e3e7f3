"""Two versions of the code run the same stage of the `ci` experiment: are the outputs the same?"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mars.audit.plan import jobs, snakemake_command
from mars.errors import UserError
from mars.provenance.files import read_json, sha256_file
from mars.provenance.fingerprint import project
from mars.provenance.manifest import NAME as MANIFEST
from mars.provenance.manifest import listed_files

# What is measured by a clock or a counter of memory and differs from run to run.
MEASURED = {
    *("seconds", "startup_seconds", "tokens_per_second", "peak_memory_bytes", "load_average"),
    *("samples_sha256", "sha256", "bytes"),
}


def prove(stage: str, commit: str) -> dict[str, Any]:
    """Run a stage of `ci` under a commit and under the present code; what was compared.

    Raises:
        UserError: the outputs differ, or the stage's outputs are times.
    """
    if stage.startswith("measure"):
        raise UserError(f"the outputs of {stage} are times, which no two runs share; no proof.")
    with tempfile.TemporaryDirectory(prefix="mars-proof-") as folder, _worktree(commit) as then:
        now = _outputs(project(), Path(folder, "now"), stage)
        before = _outputs(then, Path(folder, "then"), stage)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise UserError(f"{name} is not the same under both commits; run the jobs again.")
    return {"experiment": "ci", "stage": stage, "files": len(now), "result": "identical"}


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """The project as it was at a commit."""
    git = ["git", "-C", str(project()), "worktree"]
    with tempfile.TemporaryDirectory(prefix="mars-then-") as folder:
        path = Path(folder, "project")
        done = subprocess.run([*git, "add", "--detach", str(path), commit], capture_output=True)
        if done.returncode:
            raise UserError(f"commit {commit} is not here; fetch it, or accept without a proof.")
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], capture_output=True)


def _outputs(source: Path, folder: Path, stage: str) -> dict[str, Any]:
    """Run the `ci` jobs of a stage, and all before them; what counts of each file they made."""
    folder.mkdir()
    here = jobs([project() / "config/ci.yaml"], folder)
    wanted = [job for job in here if job.stage == stage]
    if not wanted:
        raise UserError(f"the ci experiment has no job of the stage {stage}; no proof.")
    command = [*snakemake_command(source, [source / "config/ci.yaml"]), "--quiet", "all", "--"]
    command += [str(job.record.relative_to(folder)) for job in wanted]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    print(f"Running {stage} of ci with {source}", flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{stage} of ci does not run with {source}: {done.stderr[-500:]}")
    found: dict[str, Any] = {}
    for job in wanted:
        for name in read_json(job.record)["outputs"]:
            listed = listed_files(folder / name) if Path(name).name == MANIFEST else {}
            for path in [folder / name, *listed]:
                found[str(path.relative_to(folder))] = _content(path)
    return found


def _content(path: Path) -> Any:
    """What two runs must share: all of a file but what was measured."""
    if path.suffix == ".json":
        return _unmeasured(read_json(path))
    if path.suffix == ".jsonl":
        return [_unmeasured(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".md":
        words = {name.replace("_", " ") for name in MEASURED}
        lines = path.read_text().splitlines()
        return [line for line in lines if not any(f"| {word} |" in line for word in words)]
    return sha256_file(path)


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(item) for key, item in value.items() if key not in MEASURED}
    return [_unmeasured(item) for item in value] if isinstance(value, list) else value
