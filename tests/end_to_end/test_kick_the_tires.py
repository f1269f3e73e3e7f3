"""`make kick-the-tires`: no kind of job is left out, what failed is named, and here all passes."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mars.config.experiment import load_experiment
from mars.planning.jobs import specs_of
from tests.support.ci_experiment import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    file = ROOT / "tools/kick_the_tires.py"
    specification = importlib.util.spec_from_file_location("kick_the_tires", file)
    module = importlib.util.module_from_spec(specification)
    sys.modules["kick_the_tires"] = module  # where its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


def test_every_rule_of_the_workflow_is_in_one_kind(tool: ModuleType):
    rules = [rule for kind in tool.KINDS for rule in kind.rules]
    assert sorted(rules) == sorted(specs_of(load_experiment(tool.CONFIG)))
    smk = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    from_the_hub = {"fetch_dataset", "import_checkpoint"}  # the tests of the hub try these
    assert {*rules, *from_the_hub} == {*re.findall(r"(?m)^use rule \w+ as (\w+) with", smk)}


def test_what_has_not_run_is_named(tool: ModuleType, edited: Path, run: Path):
    experiment = load_experiment(edited / "config/ci.yaml")
    results = run / "results/ci"
    steps = tool.of_jobs(experiment, results)
    assert all(step.passed for step in steps)
    assert "All of it runs here: 1 min 30 s." in tool.conclusion(steps, 90)
    (results / "provenance/probe/mars-b4-small.json").unlink()
    steps = tool.of_jobs(experiment, results)
    assert [step.name for step in steps if not step.passed] == ["probe"]
    assert "FAILED" in next(line for line in tool.table(steps) if line.startswith("probe"))
    assert tool.conclusion(steps, 90).startswith("Failed: probe; build/kick-the-tires/")


@pytest.mark.slow
def test_every_kind_of_job_runs_here_and_leaves_the_results_alone(tmp_path: Path):
    copy = tmp_path / "project"
    for name in ("mars", "workflow", "config", "tools", "results/tiny"):
        ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "data")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("Snakefile", "requirements.lock", "environment.yml"):
        shutil.copy(ROOT / name, copy)

    def results() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in copy.glob("results/**/*") if file.is_file()}

    before = results()
    command = [sys.executable, "tools/kick_the_tires.py"]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True)
    log = copy / "build/kick-the-tires/kick-the-tires.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-3000:]
    assert len(re.findall(r"  passed +\d+\.\d$", done.stdout, re.MULTILINE)) == 13
    assert (copy / "build/kick-the-tires/results/ci/report.html").is_file()
    assert results() == before
