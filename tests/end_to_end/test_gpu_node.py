"""The profile `gpu-node` with two GPUs that are none: a training is two processes, on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mars.provenance.files import read_json
from tests.support.ci_experiment import environment
from tests.support.waiting import run

OVERLAY = "resources: {training: {small: {gpus: 8}}}\n"


@pytest.mark.slow
def test_a_training_has_a_process_on_each_gpu_there_is(project: Path, tmp_path: Path):
    (tmp_path / "gpus.yaml").write_text(OVERLAY)
    done = run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
            *("--profile", str(project / "workflow/profiles/gpu-node"), "--nolock"),
            *("--configfile", str(project / "config/ci.yaml"), "gpus.yaml"),
            *("--resources", "gpu=2", "--", "results/ci/checkpoints/base-small/manifest.json"),
        ],
        tmp_path,
        cwd=tmp_path,
        env={
            **environment(project),
            "CUDA_VISIBLE_DEVICES": "0,1",
            "ACCELERATE_USE_CPU": "true",
            "TMPDIR": str(tmp_path),  # locks of its own
        },
    )
    assert done.returncode == 0, done.stdout[-4000:]
    results = tmp_path / "results/ci"
    assert "GPUs: 0, 1\n" in (results / "logs/pretrain/base-small.log").read_text()
    assert read_json(results / "checkpoints/base-small/training_summary.json")["processes"] == 2
    record = read_json(results / "provenance/pretrain/base-small.json")
    assert record["hardware"]["visible_devices"] == "0,1"
