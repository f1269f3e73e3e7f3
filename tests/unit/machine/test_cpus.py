"""If you ask for bfloat16 on a processor that is slow at it, you are told so."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mars.machine import cpus
from mars.machine.cpus import slow_bfloat16, threads_of_job

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu sse2 avx2 amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu sse2 avx2 avx512f", False),
        ("processor\t: 0", False),
    ],
)
def test_the_kernel_says_what_the_processor_can_do(line, fast, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\nbugs\t\t: avx512_bf16\n")
    monkeypatch.setattr(cpus, "CPUINFO", tmp_path / "cpuinfo")
    sentence = slow_bfloat16("training.precision", {})
    assert (sentence is None) == fast
    # PyTorch may be told to leave the instructions alone.
    limited = slow_bfloat16("training.precision", {"ATEN_CPU_CAPABILITY": "avx2"})
    assert limited is not None
    assert "`training.precision`" in limited
    assert "float32" in limited


@pytest.mark.parametrize(("precision", "notes"), [("bfloat16", 1), ("float32", 0)])
def test_check_says_so_before_a_run(precision, notes, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"training": {"precision": precision}}))
    done = subprocess.run(
        [sys.executable, "-m", "mars", "check", "config/tiny.yaml", str(overlay)],
        cwd=ROOT,
        env={"ATEN_CPU_CAPABILITY": "avx2", "PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Note: `training.precision` is bfloat16") == notes


@pytest.mark.parametrize("name", ["tiny", "ci"])
def test_what_is_meant_for_cpus_computes_in_float32(name):
    text = (ROOT / f"config/{name}.yaml").read_text()
    assert "bfloat16" not in text
    assert text.count("precision: float32") == 2, "trainings and evaluations"


@pytest.mark.skipif(platform.system() != "Linux", reason="the kernel's file is Linux's")
def test_this_processor_is_read():
    assert cpus._flags(), f"{cpus.CPUINFO} has no line of flags"


def test_threads_are_those_that_the_rule_gave():
    for said, threads in {"8": 8, "4,2": 4, "": 1, "many": 1, "0": 1}.items():
        assert threads_of_job({"OMP_NUM_THREADS": said}) == threads
    assert threads_of_job({}) == 1
