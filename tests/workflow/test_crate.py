"""The exported crate is a valid Process Run Crate and says what the records say."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import requests
from rocrate.rocrate import ROCrate
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.publishing.crate import export_crate


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator gets the JSON-LD context from the rocrate package, not from the web."""
    answer = requests.Response()
    answer.status_code = 200
    answer._content = files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
    answer.headers["Content-Type"] = "application/ld+json"

    def get(self: HttpRequester, url: str, **options: object) -> requests.Response:
        assert url == "https://w3id.org/ro/crate/1.1/context"
        return answer

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)


def problems(crate: Path) -> list[str]:
    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="process-run-crate-0.5",
        requirement_severity=models.Severity.REQUIRED,
    )
    return [f"{i.check.identifier}: {i.message}" for i in services.validate(settings).get_issues()]


def test_the_crate_is_valid_and_holds_every_job(run: Path, edited: Path):
    path = export_crate(load_experiment(edited / "config/ci.yaml"), run)
    assert path == run / "results/ci/ro-crate-metadata.json"
    assert problems(path.parent) == []
    crate = ROCrate(path.parent)
    actions = {entity["name"]: entity for entity in crate.get_by_type("CreateAction")}
    assert len(actions) == len(list((run / "results/ci/provenance").rglob("*.json")))
    train = actions["train mars-b4-small"]
    assert {entity.id for entity in train["object"]} == {
        "checkpoints/ar-small/manifest.json",
        "data/tokens/small/instructions/manifest.json",
    }
    assert train["result"].id == "checkpoints/mars-b4-small/manifest.json"
    assert len(train["result"]["sha256"]) == 64
    assert train["startTime"] <= train["endTime"]


def test_what_git_has_of_an_experiment_is_a_crate_too(run: Path, edited: Path):
    """Records are packed there, and weights and data are missing."""
    for name in ("checkpoints", "data", "evaluations", "speed", "provenance"):
        shutil.rmtree(run / "results/ci" / name)
    path = export_crate(load_experiment(edited / "config/ci.yaml"), run)
    assert problems(path.parent) == []
    crate = ROCrate(path.parent)
    train = {entity["name"]: entity for entity in crate.get_by_type("CreateAction")}[
        "train mars-b4-small"
    ]
    weights = train["result"]
    assert (weights.id, weights.type) == (
        "#checkpoints/mars-b4-small/manifest.json",
        "CreativeWork",
    )
    assert len(weights["sha256"]) == 64
    assert train["subjectOf"].id == "provenance/train/mars-b4-small.json"


def test_the_validator_would_notice(run: Path, edited: Path):
    path = export_crate(load_experiment(edited / "config/ci.yaml"), run)
    path.write_text(path.read_text().replace('"instrument"', '"tool"'))
    assert problems(path.parent)


def test_nothing_to_export_is_one_sentence(tmp_path: Path, edited: Path):
    with pytest.raises(UserError, match="run the experiment first"):
        export_crate(load_experiment(edited / "config/ci.yaml"), tmp_path)
