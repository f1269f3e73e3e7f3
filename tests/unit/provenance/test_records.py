"""Manifests find a changed byte; a failed job leaves no record."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.files import read_json, sha256_file
from mars.provenance.manifest import verify_manifest, write_manifest
from mars.provenance.record import read_record, recorded


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
