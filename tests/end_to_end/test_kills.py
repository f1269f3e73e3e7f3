"""Killed ten times at random, the experiment ends as if it had run once; so do two runs at all."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from mars.audit.cells import Tables
from mars.audit.record_graph import RecordGraph
from mars.audit.report import audit_all
from mars.config.experiment import load_experiment
from mars.provenance.files import sha256_file
from tests.support.ci_experiment import environment, snakemake, snakemake_command

KILLS = 10
# All that a second run must make bit for bit again; records, logs and tables 5 to 7 hold times.
NUMBERS = (
    "checkpoints/*/model.safetensors",
    "evaluations/*/*/*.samples.jsonl",
    "tables/table[23489].*",
    "tables/findings.*",
)


def kill_after(seconds: float, project: Path, folder: Path) -> bool:
    """Run the workflow and kill it and all its jobs; whether it was still running then."""
    run = subprocess.Popen(
        snakemake_command(project),
        cwd=folder,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        run.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def records(folder: Path) -> dict[str, str]:
    """The records of finished jobs, with their hashes (they hold the time of the run)."""
    found = (folder / "results/ci/provenance").rglob("*.json")
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


@pytest.mark.slow
def test_ten_kills_change_nothing(project: Path, finished: Path, tmp_path: Path):
    seeded = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        before = records(tmp_path)
        killed += kill_after(seeded.uniform(3, 9), project, tmp_path)
        after = records(tmp_path)
        again = [name for name in before if after.get(name) != before[name]]
        # A job that had just written its record may not have been noted as done yet.
        assert len(again) <= 2, f"made again after a kill: {again}"
    assert killed >= 5, "the runs were too short to be killed"
    snakemake(project, tmp_path)
    assert "Nothing to be done" in snakemake(project, tmp_path, "--dry-run")
    for pattern in NUMBERS:
        whole = {p.relative_to(finished) for p in finished.glob(f"results/ci/{pattern}")}
        assert whole
        for name in whole:
            assert sha256_file(tmp_path / name) == sha256_file(finished / name), name
    experiment = load_experiment(project / "config/ci.yaml")
    word, lines, _ = audit_all(Tables(RecordGraph(experiment, tmp_path)))
    assert word == "verified", lines
