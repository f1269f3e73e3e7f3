"""Two versions of the code run the same stage of the `ci` experiment: are the outputs the same?"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mars.audit.compare import compare
from mars.errors import UserError
from mars.planning.plan import jobs, snakemake_command
from mars.provenance.files import read_json
from mars.provenance.fingerprint import project
from mars.provenance.manifest import NAME as MANIFEST
from mars.provenance.manifest import listed_files


def prove(stage: str, commit: str) -> dict[str, Any]:
    """Run a stage of `ci` under a commit and under the present code; what was compared.

    Raises:
        UserError: the outputs differ, or the stage's outputs are times.
    """
    if stage.startswith("measure"):
        raise UserError(f"the outputs of {stage} are times, which no two runs share; no proof.")
    with tempfile.TemporaryDirectory(prefix="mars-proof-") as folder, worktree(commit) as then:
        now, before = Path(folder, "now"), Path(folder, "then")
        made = _outputs(project(), now, stage) | _outputs(then, before, stage)
        for name in sorted(made):
            found = compare(name, before / name, now / name)
            if found.word != "identical":
                raise UserError(
                    f"{name} is not the same under both commits ({found.text}); run the jobs again."
                )
    return {"experiment": "ci", "stage": stage, "files": len(made), "result": "identical"}


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The project as it was at a commit."""
    git = ["git", "-C", str(project()), "worktree"]
    with tempfile.TemporaryDirectory(prefix="mars-then-") as folder:
        path = Path(folder, "project")
        done = subprocess.run([*git, "add", "--detach", str(path), commit], capture_output=True)
        if done.returncode:
            raise UserError(f"commit {commit} is not here; fetch it first.")
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], capture_output=True)


def _outputs(source: Path, folder: Path, stage: str) -> set[str]:
    """Run the `ci` jobs of a stage, and all before them; the files they made, as named there."""
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
    files = [folder / name for job in wanted for name in read_json(job.record)["outputs"]]
    listed = [path for file in files if file.name == MANIFEST for path in listed_files(file)]
    return {str(path.relative_to(folder)) for path in (*files, *listed)}
