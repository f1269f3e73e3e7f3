"""The finished `ci` experiment that several tests look at: it runs once, in a folder of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mars.provenance import fingerprint
from mars.provenance.files import sha256_file
from tests.support.ci_experiment import (
    FAILURE,
    THE_TEST,
    environment,
    forget,
    snakemake,
    snakemake_command,
)
from tests.support.waiting import end_of, started, wait

ROOT = Path(__file__).resolve().parents[1]

# An example may take as long as it takes on a busy machine. `make test` draws the same examples
# every time, so that it fails for whoever broke something; `make test-properties` looks for more.
settings.register_profile(
    "same",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
settings.register_profile(
    "search", settings.get_profile("same"), derandomize=False, max_examples=1000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of a test run; whoever comes first fills it, the others wait."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether this process is to fill the folder; no other one is inside at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def project(shared: Path) -> Path:
    """A copy of the project, which stays as it is while the experiment runs."""
    copy = shared / "project"
    with once(copy) as to_do:
        if to_do:
            for name in ("mars", "workflow", "config"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, copy / name, ignore=ignored)
            for name in ("Snakefile", "requirements.lock", "environment.yml"):
                shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="session")
def experiment(project: Path, shared: Path) -> Path:
    """A folder in which the experiment ran, was killed after its first model, and ran again.

    A failure is noted there, so that it is one, and the other processes do not run it again.
    """
    folder = shared / "finished"
    with once(folder) as to_do:
        if to_do:
            try:
                run_killed_and_resumed(project, folder)
            except Exception:
                (folder / FAILURE).write_text(traceback.format_exc())
    return folder


@pytest.fixture
def finished(experiment: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of the finished experiment, for all tests; one that changes it takes ``run``.

    If the experiment failed, a test skips that needs it, provided that ``THE_TEST`` fails.
    """
    if (experiment / FAILURE).exists():
        if any(item.name == THE_TEST for item in request.session.items):
            pytest.skip(f"the ci experiment failed; see {THE_TEST}")
        pytest.fail((experiment / FAILURE).read_text(), pytrace=False)
    return experiment


def noted(folder: Path, file: Path) -> bool:
    """Whether Snakemake has taken note that the job which makes ``file`` is done."""
    name = urlsafe_b64encode(str(file.relative_to(folder)).encode()).decode()
    state = folder / ".snakemake"
    return (state / "metadata" / name).exists() and not (state / "incomplete" / name).exists()


def run_killed_and_resumed(project: Path, folder: Path) -> None:
    first = folder / "results/ci/provenance/pretrain/base-small.json"
    log = folder / "killed.log"
    with started(snakemake_command(project), log, cwd=folder, env=environment(project)) as process:
        status = wait(process, folder, until=lambda: noted(folder, first))
        assert status is None, end_of(log)
        time.sleep(1)  # the next job has started
    done_before = sha256_file(first)
    (folder / "resumed.log").write_text(snakemake(project, folder))
    assert sha256_file(first) == done_before, "a finished stage was run again after the kill"


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
    monkeypatch.setattr(fingerprint, "PACKAGE", copy / "mars")
    for name, value in environment(copy).items():
        monkeypatch.setenv(name, value)
    forget()
    yield copy
    forget()
