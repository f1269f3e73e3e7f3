"""The large folders of an experiment, pushed from one clone and pulled into another, by DVC."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest

from mars.errors import UserError
from mars.publishing import ledger, storage
from tests.support.git import git

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("results/ci")
LARGE = ("data", "checkpoints", "evaluations", "speed")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two clones of a repository with a ledger; ``first`` has the large folders.

    The experiment is none: it has a file where a real one has a folder or a table.
    """
    folder = tmp_path_factory.mktemp("pristine")
    first = folder / "first"
    shutil.copytree(
        ROOT / ".dvc",
        first / ".dvc",
        ignore=shutil.ignore_patterns("cache", "tmp", "config.local"),
    )
    stages = (ROOT / "dvc.yaml").read_text().replace("[tiny, mini]", "[ci]")
    (first / "dvc.yaml").write_text(stages.partition("\nplots:")[0])
    (first / ".gitignore").write_text("".join(f"/{RESULTS}/{name}/\n" for name in LARGE))
    small = ("comparison.csv", "comparison.md", "claims.json", "claims.md", "report.html")
    for name in (
        *(f"specs/{part}.json" for part in (*LARGE, "paper")),
        *(f"{part}/file" for part in (*LARGE, "tables", "figures")),
        *(*small, "metrics.json"),
    ):
        (first / RESULTS / name).parent.mkdir(parents=True, exist_ok=True)
        (first / RESULTS / name).write_text(f'{{"what": "{name}"}}')
    git(first, "init", "--quiet")
    with chdir(first):
        assert "is in DVC's cache" in ledger.commit(RESULTS)
    git(first, "add", "--all")
    git(first, "commit", "--quiet", "--message", "results")
    git(folder, "clone", "--quiet", str(first), "second")
    return folder


@pytest.fixture
def clones(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two clones, side by side; this process is in the first."""
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    monkeypatch.delenv(storage.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path / "first")
    return tmp_path / "first", tmp_path / "second"


def contents(clone: Path) -> dict[str, str]:
    files = (clone / RESULTS / name / "file" for name in LARGE)
    return {str(file.relative_to(clone)): file.read_text() for file in files if file.is_file()}


def test_what_one_clone_pushes_the_other_pulls(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = clones
    monkeypatch.chdir(second)
    assert contents(second) == {}
    with pytest.raises(UserError, match=r"-storage is not there.*make push EXPERIMENT=ci"):
        storage.pull(RESULTS)
    monkeypatch.chdir(first)
    assert str(tmp_path / "mars-repro-storage") in storage.push(RESULTS)
    monkeypatch.chdir(second)
    storage.pull(RESULTS)
    assert contents(second) == contents(first)
    assert len(contents(second)) == len(LARGE)


def test_another_place_is_named_by_a_variable_and_remembered(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = clones
    monkeypatch.setenv(storage.VARIABLE, "../elsewhere")  # as seen from here
    storage.push(RESULTS)
    assert not (tmp_path / "mars-repro-storage").exists()
    monkeypatch.chdir(second)
    storage.pull(RESULTS)
    assert contents(second) == contents(first)
    monkeypatch.delenv(storage.VARIABLE)
    shutil.rmtree(second / RESULTS / "data")
    assert str(tmp_path / "elsewhere") in storage.pull(RESULTS)
    assert contents(second) == contents(first)
    shown = subprocess.run(["git", "status", "--short"], capture_output=True, text=True)
    assert shown.stdout == "", "the place is noted for this clone alone"


def test_neither_here_nor_in_the_storage_is_one_sentence(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mars-repro-storage").mkdir()
    monkeypatch.chdir(clones[1])
    with pytest.raises(UserError, match=r"results/ci/\w+/, .* is neither in \S+ nor here"):
        storage.push(RESULTS)  # DVC only warns
    with pytest.raises(UserError, match="mars-repro-storage did not give back all of results/ci"):
        storage.pull(RESULTS)


def test_what_dvc_does_not_keep_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for verb in (storage.push, storage.pull):
        with pytest.raises(UserError, match="DVC keeps nothing of results/paper: the first lines"):
            verb(Path("results/paper"))
