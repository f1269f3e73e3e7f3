"""Fetching from a mirror folder in hub layout, without network."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from mars.data.hub import FETCHED, MIRROR_VARIABLE, fetch, read_dataset
from mars.errors import UserError
from mars.provenance.files import write_json


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    (folder / "owner/name/main").mkdir(parents=True)
    (folder / "owner/name/main/train.parquet").write_bytes(b"rows")
    monkeypatch.setenv(MIRROR_VARIABLE, str(folder))
    return folder


def test_a_mirror_is_copied_whole_and_replaces_what_was_there(mirror: Path, tmp_path: Path):
    output = tmp_path / "hub/owner/name"
    output.mkdir(parents=True)
    (output / "stale").write_text("old")
    facts = fetch("owner/name", "dataset", None, output)
    assert facts == {"repository": "owner/name", "source": "mirror", "revision": None}
    assert [str(p.relative_to(output)) for p in output.rglob("*.*")] == ["main/train.parquet"]


def test_a_fetched_mirror_says_which_commit_it_holds(mirror: Path, tmp_path: Path):
    entry = {"asked": "main", "revision": "c0ffee", "complete": True}
    write_json(mirror / FETCHED, {"owner/name": entry})
    for revision in (None, "main", "c0ffee"):
        facts = fetch("owner/name", "dataset", revision, tmp_path / "out")
        assert facts["revision"] == "c0ffee"
    with pytest.raises(UserError, match=r"at c0ffee and the experiment wants beef; run `mars fet"):
        fetch("owner/name", "dataset", "beef", tmp_path / "out")
    write_json(mirror / FETCHED, {"owner/name": entry | {"complete": False}})
    with pytest.raises(UserError, match=r"is not complete in .*; run `mars fetch` again"):
        fetch("owner/name", "dataset", None, tmp_path / "out")


def test_what_the_mirror_lacks_is_named(mirror: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"has no owner/other; run `mars fetch`, put a snap"):
        fetch("owner/other", "model", None, tmp_path / "out")


def test_without_network_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=MIRROR_VARIABLE):
        fetch("owner/name", "dataset", None, tmp_path / "out")


def test_folders_of_the_same_name_are_not_confused(tmp_path: Path):
    for number in (1, 2):
        folder = tmp_path / str(number) / "owner/name"
        folder.mkdir(parents=True)
        Dataset.from_list([{"text": f"row of {number}"}]).to_parquet(folder / "train.parquet")
        rows = read_dataset(folder, None, "train")
        assert rows["text"][:] == [f"row of {number}"]
