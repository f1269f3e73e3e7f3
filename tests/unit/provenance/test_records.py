"""Manifests find a changed byte; a failed job leaves no record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mars.errors import UserError
from mars.planning.differences import changed_keys
from mars.provenance.files import (
    read_json,
    read_jsonl,
    sha256_file,
    write_atomic,
    write_jsonl,
)
from mars.provenance.fingerprint import Reached
from mars.provenance.manifest import (
    new_folder,
    size_with_manifest,
    verify_manifest,
    write_manifest,
)
from mars.provenance.record import is_sealed, read_record, run_recorded, sealed
from mars.provenance.stage import Inputs, Job, JobSpec, Spec, Stage


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


class Alone(Stage):
    """A stage whose code is not of the package."""

    @property
    def reached(self) -> Reached:
        return Reached({"mars.somewhere": "0"}, frozenset({"numpy"}))


def job(tmp_path: Path, run: Callable[[Spec, Job], Any]) -> tuple[Stage, Job]:
    """A stage that does ``run``, and a job of it with one input."""
    source = tmp_path / "data/hub/manifest.json"
    source.parent.mkdir(parents=True)
    source.write_text("{}")
    spec = JobSpec(stage="alone", target={}, config={}, code="c", packages="p")
    stage = Alone("alone", Spec, lambda experiment: Spec(), run)
    return stage, Job(spec, Inputs((source,)), tmp_path / "made")


def test_record_holds_inputs_outputs_and_facts(tmp_path: Path):
    def run(spec: Spec, job: Job) -> dict[str, int]:
        write_atomic(job.output / "weights", "1")
        return {"answer": 42}

    record = tmp_path / "p/record.json"
    stage, one = job(tmp_path, run)
    run_recorded(stage, one, record)
    written = read_record(record)
    manifest = tmp_path / "made/manifest.json"
    assert written["inputs"] == {str(one.inputs.files[0]): sha256_file(one.inputs.files[0])}
    assert written["outputs"] == {str(manifest): sha256_file(manifest)}
    assert read_json(manifest)["answer"] == 42
    assert written["spec"] == one.spec.model_dump()
    assert written["facts"] == {"answer": 42}
    assert written["code"]["modules"] == {"mars.somewhere": "0"}
    assert written["environment"]["numpy"] == np.__version__
    assert "torch" not in written["environment"]
    assert written["hardware"]["cores"] >= 1
    assert written["peak_memory_bytes"] > 0
    assert is_sealed(written)
    assert not is_sealed({**written, "seconds": 0.5})
    assert not is_sealed({key: value for key, value in written.items() if key != "facts"})
    assert is_sealed(sealed({**written, "seconds": 0.5}))


def test_files_are_the_outputs_of_a_stage_that_returns_them(tmp_path: Path):
    def run(spec: Spec, job: Job) -> list[Path]:
        write_atomic(job.output / "table.csv", "1")
        return [job.output / "table.csv"]

    stage, one = job(tmp_path, run)
    run_recorded(stage, one, tmp_path / "record.json")
    assert list(read_record(tmp_path / "record.json")["outputs"]) == [str(one.output / "table.csv")]
    assert not (one.output / "manifest.json").exists()


def test_a_failed_job_leaves_no_record(tmp_path: Path):
    def run(spec: Spec, job: Job) -> None:
        raise RuntimeError

    stage, one = job(tmp_path, run)
    with pytest.raises(RuntimeError):
        run_recorded(stage, one, tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_of_several_processes_the_first_one_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stage, one = job(tmp_path, lambda spec, job: None)
    one.output.mkdir()
    monkeypatch.setenv("RANK", "1")
    run_recorded(stage, one, tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()
    monkeypatch.setenv("RANK", "0")
    run_recorded(stage, one, tmp_path / "record.json")
    assert (tmp_path / "record.json").exists()


def test_inputs_are_known_by_their_place(tmp_path: Path):
    results = tmp_path / "results/speed"
    files = [
        results / name
        for name in (
            "data/hub/openai/gsm8k/manifest.json",
            "checkpoints/tables/manifest.json",
            "evaluations/a/manifest.json",
            "evaluations/b/manifest.json",
        )
    ]
    inputs = Inputs(tuple(files))
    assert inputs.hub == results / "data/hub"
    assert inputs.folder("checkpoints") == results / "checkpoints/tables"
    assert list(inputs.folders("evaluations")) == ["a", "b"]
    with pytest.raises(UserError, match="takes one input"):
        inputs.folder("evaluations")
    with pytest.raises(UserError, match=r"gsm8k/manifest\.json does not exist; run the job"):
        _ = inputs.sha256
    with pytest.raises(UserError, match="is no input of any stage"):
        Inputs((tmp_path / "notes.txt",))


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
        ({"a": 1, "c": [1]}, {"b": 1, "c": [2]}, ["a is gone", "c -1 +2", "b is new"]),
    ],
)
def test_changed_keys_are_named_with_both_values(then: dict, now: dict, expected: list[str]):
    assert changed_keys(then, now) == expected


def test_changed_lists_are_told_by_their_entries():
    then = [{"name": "table2", "caption": "a"}, {"name": "table3"}, "x"]
    now = ["x", {"name": "table2", "caption": "b"}, {"name": "masks", "caption": "c" * 500}]
    assert changed_keys({"shown": then}, {"shown": now}) == ["shown another table2 -table3 +masks"]
    assert changed_keys({"n": [1, 2]}, {"n": [2, 1]}) == ["n in another order"]


@given(st.lists(st.dictionaries(st.text(), st.text()), max_size=3))
@example([{"answer": "a\u2028b\u2029c\x85d\x1ce"}])
def test_lines_of_json_come_back_whatever_they_hold(rows: list[dict[str, str]]):
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(Path(folder, "rows.jsonl"), rows)
        assert read_jsonl(Path(folder, "rows.jsonl")) == rows
