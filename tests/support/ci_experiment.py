"""Running the workflow from a copy of the project, as the shared fixtures and tests do."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

from mars.provenance import fingerprint, lock
from tests.support.git import git
from tests.support.waiting import run

FAILURE = "failure.log"  # in the folder of the shared experiment, if that failed
THE_TEST = "test_the_experiment_runs_to_its_end"  # which fails then


def environment(project: Path) -> dict[str, str]:
    """The variables with which a command runs that copy of the project."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}


def snakemake_command(project: Path, config: Path | None = None) -> list[str]:
    """Snakemake on the `ci` experiment, or on another configuration."""
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
        *("--profile", str(project / "workflow/profiles/default"), "--nolock"),
        *("--configfile", str(config or project / "config/ci.yaml")),
    ]


def snakemake(project: Path, folder: Path, *arguments: str) -> str:
    """Run the workflow in ``folder`` to its end; what it printed."""
    command = [*snakemake_command(project), *arguments]
    done = run(command, folder, cwd=folder, env=environment(project))
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def forget() -> None:
    """Drop what was computed of the code and the lock before an edit."""
    fingerprint.forget()
    lock.forget()


def change_function(path: Path, name: str) -> None:
    """Give a function, or a method (``Class.method``), another first statement."""
    lines, node = path.read_text().splitlines(), ast.parse(path.read_text())
    for part in name.split("."):
        node = next(one for one in node.body if getattr(one, "name", "") == part)
    first = node.body[1] if ast.get_docstring(node) else node.body[0]
    lines.insert(first.lineno - 1, f"{' ' * first.col_offset}changed = 1")
    path.write_text("\n".join(lines) + "\n")


def commit(project: Path) -> str:
    """Make the project a repository with one commit, or commit what has changed; its hash."""
    (project / ".gitignore").write_text("__pycache__/\n")  # running the code is no edit
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "then")):
        git(project, *words)
    return git(project, "rev-parse", "HEAD")
