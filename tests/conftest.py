"""The finished `ci` experiment that several tests look at: it runs once, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from ci_experiment import environment, forget, snakemake, snakemake_command

from mars import stages
from mars.files import sha256_file
from mars.provenance import fingerprint, plan

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the finished experiment share one process, or each process would run it."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("finished"))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, which stays as it is while the experiment runs."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("mars", "workflow", "config"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "requirements.lock", "environment.yml"):
        shutil.copy(ROOT / name, copy)
    return copy


def noted(folder: Path, file: Path) -> bool:
    """Whether Snakemake has taken note that the job which makes ``file`` is done."""
    name = urlsafe_b64encode(str(file.relative_to(folder)).encode()).decode()
    state = folder / ".snakemake"
    return (state / "metadata" / name).exists() and not (state / "incomplete" / name).exists()


@pytest.fixture(scope="session")
def finished(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the experiment ran, was killed after its first model, and ran again."""
    folder = tmp_path_factory.mktemp("run")
    first = folder / "results/ci/provenance/train/base-small.json"
    with open(folder / "killed.log", "w") as log:
        run = subprocess.Popen(
            snakemake_command(project),
            cwd=folder,
            env=environment(project),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not noted(folder, first):
            assert run.poll() is None, (folder / "killed.log").read_text()[-4000:]
            assert time.monotonic() < deadline, "the first model was not trained in time"
            time.sleep(0.2)
        time.sleep(1)  # the next job has started
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    done_before = sha256_file(first)
    (folder / "resumed.log").write_text(snakemake(project, folder))
    assert sha256_file(first) == done_before, "a finished stage was run again after the kill"
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished experiment's folder, to change things in."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    return copy


@pytest.fixture
def edited(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project to edit, which this process takes for the present one."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    for module in (fingerprint, plan):
        monkeypatch.setattr(module, "PACKAGE", copy / "mars")
    monkeypatch.setattr(stages, "LOCK", copy / "requirements.lock")
    for name, value in environment(copy).items():
        monkeypatch.setenv(name, value)
    forget()
    yield copy
    forget()
