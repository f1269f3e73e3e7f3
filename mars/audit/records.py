"""The records of all jobs in one file, which git has, and back to the files that the jobs wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mars.provenance.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl

RECORDS = "records.jsonl"


def save_records(results: Path) -> None:
    """Put all records of an experiment into the one file."""
    files = sorted((results / "provenance").rglob("*.json"))
    rows = ({"file": str(f.relative_to(results)), "record": read_json(f)} for f in files)
    write_jsonl(results / RECORDS, rows)


def restore_records(results: Path) -> None:
    """Write the records that are not there as the files that their jobs wrote.

    One that is there gives way if it is not of the outputs that are there, and the packed one is:
    git brought both.
    """
    packed = results / RECORDS
    for row in read_jsonl(packed) if packed.is_file() else []:
        file, record = results / row["file"], row["record"]
        if not file.exists() or (not _made_what_is_there(file) and _fits(record)):
            write_json(file, record)


def _made_what_is_there(file: Path) -> bool:
    try:
        return _fits(read_json(file))
    except (ValueError, KeyError):
        return True  # it was tampered with, which the audit is to find


def _fits(record: Mapping[str, Any]) -> bool:
    return all(
        Path(name).is_file() and sha256_file(name) == digest
        for name, digest in record["outputs"].items()
    )
