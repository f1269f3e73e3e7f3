"""What a release has: built twice it is the same, and its verdicts come out again without git."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.ci_experiment import FAILURE, commit, environment
from tests.support.git import need_git

ROOT = Path(__file__).resolve().parents[2]
SAID = ("CITATION.cff", ".zenodo.json", "LICENSE", "README.md", "pyproject.toml")
RESULTS = Path("results/ci")
# What git has of an experiment of this size.
IN_GIT = (
    *("claims.json", "claims.md", "comparison.csv", "comparison.md", "metrics.json", "tables"),
    *("records.jsonl", "samples.parquet", "evidence.parquet"),
)
CHANGES = "- What a user of it notices."


@pytest.fixture(scope="module")
def repository(project: Path, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the project at version 3.2.1, with what git has of the ci experiment."""
    if (experiment / FAILURE).exists():
        pytest.skip("the ci experiment failed")
    need_git()
    folder = tmp_path_factory.mktemp("release") / "repository"
    shutil.copytree(project, folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name in SAID:
        shutil.copy(ROOT / name, folder)
    for name in IN_GIT:
        source, target = experiment / RESULTS / name, folder / RESULTS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n{CHANGES}\n")
    tool(folder, "version.py", "3.2.1")
    (folder / "Makefile").write_text("# A program may be run:\n")
    (folder / "Makefile").chmod(0o775)
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def dist(repository: Path) -> Path:
    (repository / "README.md").write_text("Not committed.\n")
    tool(repository, "release.py", "--tag", "v3.2.1", "--to", "dist")
    return repository / "dist"


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(dist / "mars-repro-3.2.1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "mars-repro-3.2.1"


def tool(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's tools in a copy of it."""
    command = [sys.executable, f"tools/{words[0]}", *words[1:]]
    variables = {**environment(folder), **variables}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_the_archive_has_the_commit_and_what_was_made_of_it(
    repository: Path, dist: Path, unpacked: Path
):
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    committed = set(listed.stdout.split())
    found = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert f"{RESULTS}/samples.parquet" in committed <= found
    records = (RESULTS / "provenance").parts
    made = {name for name in found - committed if Path(name).parts[:3] != records}
    assert made == {"sbom.cdx.json", f"{RESULTS}/ro-crate-metadata.json"}
    assert "Not committed" not in (unpacked / "README.md").read_text()
    assert (unpacked / "Makefile").stat().st_mode & 0o777 == 0o755
    assert {file.name for file in dist.iterdir()} == {
        *("mars-repro-3.2.1.tar.gz", "mars-repro-3.2.1.sbom.cdx.json", "notes.md", "SHA256SUMS"),
    }
    assert (dist / "notes.md").read_text() == f"{CHANGES}\n"
    assert json.loads((unpacked / "sbom.cdx.json").read_text())["metadata"]["component"] == {
        **{"type": "application", "name": "mars-repro", "version": "3.2.1"},
        **{"bom-ref": "mars-repro", "licenses": [{"license": {"id": "Apache-2.0"}}]},
    }
    for line in (dist / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256((dist / name).read_bytes()).hexdigest() == digest


def test_the_same_commit_gives_the_same_bytes(repository: Path, dist: Path, tmp_path: Path):
    clone = tmp_path / "another place"
    subprocess.run(["git", "clone", "--quiet", repository, clone], check=True)
    before = os.umask(0o077)
    try:
        tool(clone, "release.py", "--to", "dist", TZ="Asia/Kolkata", LC_ALL="C")
    finally:
        os.umask(before)
    for file in dist.iterdir():
        assert (clone / "dist" / file.name).read_bytes() == file.read_bytes(), file.name


def test_git_knows_the_commit_of_the_archive(repository: Path, dist: Path, tmp_path: Path):
    command = f"gunzip -c {dist / 'mars-repro-3.2.1.tar.gz'} | git get-tar-commit-id"
    said = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    head = ["git", "rev-parse", "HEAD"]
    known = subprocess.run(head, cwd=repository, capture_output=True, text=True)
    assert said.stdout == known.stdout


def test_verdicts_come_out_again_of_the_archive_alone(unpacked: Path):
    command = [sys.executable, "-m", "mars", "claims", "--config", "config/ci.yaml"]
    variables = {**environment(unpacked), "GIT_DIR": "/nowhere"}
    done = subprocess.run(command, cwd=unpacked, env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["the same"], done.stdout + done.stderr


def test_the_crate_names_no_file_that_the_archive_lacks(unpacked: Path):
    crate = json.loads((unpacked / RESULTS / "ro-crate-metadata.json").read_text())
    files = [entity["@id"] for entity in crate["@graph"] if entity["@type"] == "File"]
    assert "tables/table2.csv" in files
    assert "provenance/claims.json" in files
    assert [name for name in files if not (unpacked / RESULTS / name).is_file()] == []


def test_a_tag_that_is_not_the_version_builds_nothing(repository: Path, tmp_path: Path):
    to = tmp_path / "dist"
    command = [sys.executable, "tools/release.py", "--tag", "v3.2.0", "--to", str(to)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the tag is v3.2.0, and pyproject.toml says 3.2.1" in done.stderr
    assert not to.exists()
