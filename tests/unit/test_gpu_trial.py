"""`make test-gpu` where there is no GPU: what it can try, what it keeps, and that it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mars.decoding import cursor
from mars.decoding.methods import TIMED
from mars.machine.data_sheets import peaks
from mars.planning.gpu_results import GpuResult, trainings
from tests.gpu.__main__ import run_part
from tests.gpu.device import slug
from tests.gpu.exactness import Exactness
from tests.gpu.part import Part, Row
from tests.gpu.result import Result
from tests.gpu.training_speed import Case, Timed

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# Of what the project needs, a GPU node's own Python may lack all but a few.
LACKING = (
    *("datasets", "dvc", "evaluate", "lm_eval", "matplotlib", "nltk", "pandas", "pyarrow"),
    *("pydantic", "rocrate", "snakemake", "hypothesis", "pytest", "scipy"),
)
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))  # None: as if it were not installed
sys.argv[0] = "tests.gpu"
runpy.run_module("tests.gpu", run_name="__main__", alter_sys=True)
"""


def test_on_a_cpu_it_tries_what_it_can_and_says_what_it_left_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, " ".join(LACKING), "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.iterdir()
    found = json.loads(file.read_text())
    assert found["versions"]["torch"] == torch.__version__
    status = {row["name"]: row["status"] for row in found["checks"]}
    assert status["exactness: cursor, lossless, extra_mask"] == "passed"
    assert status["exactness: block cache, cache_block 8"] == "passed"
    assert status["training step: mars_dense, float32"] == "passed"
    assert status["training step: flex_attention, bfloat16"] == "skipped"
    assert status["the shapes of 0.5B and 7B"] == "skipped"
    assert "needs a GPU" in done.stdout
    assert {row["method"] for row in found["training"]} == {"mars", "ar_sft"}
    assert {row["batch"] for row in found["decoding"]} == {1, 4}
    assert all(row["tokens_per_second"] > 0 for row in found["decoding"] + found["training"])
    assert found["training"][0]["model_flops_utilisation"] is None
    # What a GPU adds to such a file makes it one that the plan reads.
    complete = json.dumps(found).replace('"tiny"', '"0.5B"').replace("null", "1.0")
    read = GpuResult.model_validate_json(complete)
    assert {row.method for row in read.decoding} <= set(TIMED)
    assert trainings([read], "0.5B", "mars")


def rows_of(seconds: float = 60.0) -> tuple[Part, list[Row]]:
    rows: list[Row] = []
    return Part("part", CPU, seconds, lambda section, row: rows.append(row)), rows


def test_a_wrong_decoder_fails_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(*arguments: Any) -> torch.Tensor:
        return (rule(*arguments) + 1).clamp(max=arguments[0].shape[-1])

    rule = cursor.accepted_run
    monkeypatch.setattr(cursor, "accepted_run", one_more)
    part, (rows) = rows_of()
    part.check("cursor", partial(Exactness(part).like_window, "cursor", {}))
    assert rows[0]["status"] == "failed"
    assert "continuations differ" in rows[0]["detail"]


def test_what_goes_wrong_is_a_row_and_not_the_end() -> None:
    def out_of_memory() -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB\nand so on")

    part, rows = rows_of()
    part.check("a", out_of_memory)
    part.check("b", lambda: part.gpu_only("a graph") or "")
    part.check("c", lambda: "seen")
    part.check("d", lambda: "seen", takes=61)
    assert [row["status"] for row in rows] == ["failed", "skipped", "passed", "skipped"]
    assert rows[0]["detail"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GB"
    assert rows[1]["detail"] == "a graph: needs a GPU"
    assert rows[3]["detail"] == "the 60 s of part were spent"


def printing(lines: str, then: str) -> list[str]:
    """A process that prints a row and does something else."""
    row = 'print(\'\\x1e\' + \'["checks", {"name": "a"}]\', flush=True)'
    return [sys.executable, "-c", f"import os, time; {row}; {lines}; {then}"]


def test_a_part_that_takes_too_long_is_killed_with_all_it_started_and_its_rows_stay() -> None:
    rows: list[Row] = []
    child = "import subprocess, sys; subprocess.Popen(['sleep', '600'])"
    trouble = run_part(printing(child, "time.sleep(600)"), 2, lambda section, row: rows.append(row))
    assert rows == [{"name": "a"}]
    assert trouble is not None
    assert trouble.startswith("stopped after 2 s")


def test_a_part_that_takes_too_long_says_in_what() -> None:
    begun = 'print(\'\\x1e\' + \'["begun", {"name": "cursor, batch 4"}]\', flush=True)'
    rows: list[Row] = []
    trouble = run_part(printing(begun, "time.sleep(600)"), 2, lambda section, row: rows.append(row))
    assert rows == [{"name": "a"}]
    assert trouble is not None
    assert trouble.startswith("stopped (cursor, batch 4) after 2 s")


def test_a_part_that_dies_says_how() -> None:
    rows: list[Row] = []
    command = printing("print('CUDA error: an illegal memory access', flush=True)", "os._exit(3)")
    trouble = run_part(command, 60, lambda section, row: rows.append(row))
    assert rows == [{"name": "a"}]
    assert trouble == "ended with 3: CUDA error: an illegal memory access"


def test_the_file_is_whole_after_every_row(tmp_path: Path) -> None:
    result = Result(CPU, tmp_path / "gpu")
    for number in range(3):
        result.add("checks", {"name": str(number), "status": "passed", "detail": ""})
        assert result.path is not None
        assert len(json.loads(result.path.read_text())["checks"]) == number + 1
    assert [path.suffix for path in result.path.parent.iterdir()] == [".json"]


@pytest.mark.parametrize(("measured", "fails"), [(80, False), (60, True), (115, True)])
def test_memory_must_be_as_modelled(measured: int, fails: bool) -> None:
    timed = object.__new__(Timed)
    timed.case, timed.peak, timed.modelled = Case("0.5B", "mars"), measured, 100
    if fails:
        with pytest.raises(AssertionError):
            timed.about_memory()
    else:
        assert "modelled" in timed.about_memory()


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA H100 PCIe", 2.0e12),
        ("NVIDIA A100-SXM4-40GB", 1.555e12),
        ("NVIDIA A100-SXM4-80GB", 2.039e12),
        ("NVIDIA L40S", 0.864e12),
        ("NVIDIA L4", 0.3e12),
        ("NVIDIA A10", 0.6e12),
        ("Some other device", None),
    ],
)
def test_data_sheets(name: str, bandwidth: float | None) -> None:
    assert peaks(name)[1] == bandwidth


def test_a_device_names_its_file() -> None:
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
