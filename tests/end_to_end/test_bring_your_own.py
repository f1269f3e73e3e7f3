"""The experiment of docs/bring-your-own.md as it stands there: own model, data and task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mars.provenance.files import read_json
from tests.support.ci_experiment import environment, snakemake_command
from tests.support.hub_standins import write_llama
from tests.support.waiting import run as run_command

DOCS = Path(__file__).resolve().parents[2] / "docs"


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows: a line with the path, then the content."""
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = files_of((DOCS / "bring-your-own.md").read_text())
    assert len(files) == 4
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    write_llama(tmp_path / "mirror/me/small-llama")
    return tmp_path


def run(project: Path, folder: Path, *arguments: str) -> str:
    done = run_command(
        [*snakemake_command(project, folder / "config/mine.yaml"), *arguments],
        folder,
        cwd=folder,
        env=environment(project) | {"MARS_HUB_MIRROR": str(folder / "mirror")},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_page_is_an_experiment(project: Path, folder: Path):
    planned = run(project, folder, "--dry-run")
    for stage, count in {
        "import_checkpoint": 1,
        "train": 2,
        "evaluate": 3,
        "fetch_dataset": 2,
    }.items():
        assert re.search(rf"^{stage} +{count}$", planned, re.MULTILINE), stage


@pytest.mark.slow
def test_configuration_is_all_it_takes(project: Path, folder: Path):
    run(project, folder)
    results = folder / "results/mine"
    scores = read_json(results / "metrics.json")
    assert set(scores["mars-b4"]) == {"one-token", "tau-0.9"}
    record = read_json(results / "evaluations/mars-b4/tau-0.9/capitals.json")
    assert record["task"] == "capitals"
    assert record["documents"] == 3
    assert read_json(results / "checkpoints/mars-b4/config.json")["model_type"] == "llama"
    assert "Nothing to be done" in run(project, folder, "--dry-run")
    task = folder / "tasks/capitals.yaml"
    task.write_text(task.read_text().replace("What is the", "Name the"))
    planned = run(project, folder, "--dry-run")
    assert re.search(r"^evaluate +3$", planned, re.MULTILINE)
    assert not re.search(r"^(train|tokenize|import_checkpoint) ", planned, re.MULTILINE)
