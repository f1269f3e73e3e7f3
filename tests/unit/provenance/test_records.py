"""Manifests find a changed byte; a failed job leaves no record."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.audit.differences import changed_keys
from mars.provenance.files import read_json, sha256_file
from mars.provenance.manifest import (
    new_folder,
    size_with_manifest,
    verify_manifest,
    write_manifest,
)
from mars.provenance.record import is_sealed, read_record, recorded, sealed


def test_manifest_finds_changed_and_missing_files(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.bin").write_bytes(b"123")
    (tmp_path / "y.bin").write_bytes(b"456")
    manifest = write_manifest(tmp_path, revision="abc")
    assert set(read_json(manifest)["files"]) == {"a/x.bin", "y.bin"}
    assert read_json(manifest)["revision"] == "abc"
    assert verify_manifest(manifest) == []
    (tmp_path / "a/x.bin").write_bytes(b"124")
    (tmp_path / "y.bin").unlink()
    problems = verify_manifest(manifest)
    assert len(problems) == 2
    assert "x.bin differs" in problems[0]
    assert "y.bin is missing" in problems[1]


def test_record_holds_inputs_outputs_and_facts(tmp_path: Path):
    source, result, record = tmp_path / "in", tmp_path / "out", tmp_path / "p/record.json"
    source.write_text("1")
    with recorded(record, {"stage": "test"}, [source], [result]) as facts:
        result.write_text("2")
        facts["answer"] = 42
    written = read_record(record)
    assert written["inputs"] == {str(source): sha256_file(source)}
    assert written["outputs"] == {str(result): sha256_file(result)}
    assert written["spec"] == {"stage": "test"}
    assert written["facts"] == {"answer": 42}
    assert written["hardware"]["cores"] >= 1
    assert written["peak_memory_bytes"] > 0


def test_a_failed_job_leaves_no_record(tmp_path: Path):
    with pytest.raises(RuntimeError), recorded(tmp_path / "record.json", {}, [], []):
        raise RuntimeError
    assert not (tmp_path / "record.json").exists()


def test_an_edited_record_is_noticed_and_can_be_sealed_again(tmp_path: Path):
    (tmp_path / "out").write_text("2")
    with recorded(tmp_path / "record.json", {"stage": "test"}, [], [tmp_path / "out"]):
        pass
    record = read_record(tmp_path / "record.json")
    assert is_sealed(record)
    assert record["output_bytes"] == 1
    assert not is_sealed({**record, "seconds": 0.5})
    assert not is_sealed({key: value for key, value in record.items() if key != "facts"})
    assert is_sealed(sealed({**record, "seconds": 0.5}))


def test_a_record_names_the_modules_that_a_stage_runs(tmp_path: Path):
    with recorded(tmp_path / "record.json", {"stage": "train_tokenizer"}, [], []):
        pass
    modules = read_record(tmp_path / "record.json")["code"]["modules"]
    assert "mars.data.tokenizer" in modules
    assert "mars.training.losses" not in modules


def test_a_new_folder_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old").write_text("old")
    shared = tmp_path / "cache"
    shared.hardlink_to(folder / "old")

    def fail() -> None:
        with new_folder(folder) as partial:
            (partial / "old").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (folder / "old").read_text() == "old"
    with new_folder(folder) as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert shared.read_text() == "old"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_size_of_a_manifest_is_that_of_all_it_lists(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"12345")
    manifest = write_manifest(tmp_path)
    assert size_with_manifest(manifest) == 5 + manifest.stat().st_size


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b 1 -> 2"]),
        ({"a": None}, {"a": {"b": 2}}, ['a null -> {"b": 2}']),
        ({"a": 1, "c": [1]}, {"b": 1, "c": [2]}, ["a is gone", "c [1] -> [2]", "b is new"]),
    ],
)
def test_changed_keys_are_named_with_both_values(then: dict, now: dict, expected: list[str]):
    assert changed_keys(then, now) == expected
