"""What Snakemake notes of each output, kept beside the results so that a clone has it too.

Snakemake keeps these notes in ``.snakemake/metadata``; without them a clone could neither tell that
all is done nor notice a later change. Their format is private to Snakemake, and this is the only
module that knows it. It holds for the version below; a test says when the lock has another one.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mars.provenance.files import canonical_json, read_json, read_jsonl, write_atomic, write_json

HOLDS_FOR = "9"  # major version of Snakemake
NOTES = Path(".snakemake/metadata")
SAVED = "snakemake.jsonl"
# Long, and no reason to run a job again; the command is in the record.
LEFT_OUT = ("shellcmd", "conda_env", "log", "external_jobid")


def save_notes(results: Path) -> None:
    """Write the notes of an experiment's outputs into its folder of results."""
    by_job: dict[str, list[str]] = {}
    for note in sorted(NOTES.iterdir()) if NOTES.is_dir() else []:
        file = _decoded(note.name)
        if file.startswith(f"{results}/") and Path(file).is_file():
            content = {k: v for k, v in read_json(note).items() if k not in LEFT_OUT}
            by_job.setdefault(canonical_json(content), []).append(file)
    lines = [
        canonical_json({"outputs": sorted(files), "note": json.loads(note)})
        for note, files in by_job.items()
    ]
    write_atomic(results / SAVED, "".join(f"{line}\n" for line in sorted(lines)))


def restore_notes(results: Path) -> None:
    """Give Snakemake back its notes of outputs that came from a clone or a download.

    Files that this working folder has a note of are left alone.
    """
    for file, note in _saved_notes(results):
        if not (NOTES / _encoded(file)).exists():
            # Without this folder Snakemake takes the notes for those of an old version.
            (NOTES.parent / "incomplete").mkdir(parents=True, exist_ok=True)
            write_json(NOTES / _encoded(file), note)
            _date(file, note)


def restore_dates(results: Path) -> None:
    """Date the outputs to the end of their jobs; git and DVC date all files to the download."""
    for file, note in _saved_notes(results):
        _date(file, note)


def _saved_notes(results: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outputs that are there, each with Snakemake's note of it."""
    saved = results / SAVED
    for job in read_jsonl(saved) if saved.is_file() else []:
        yield from ((file, job["note"]) for file in job["outputs"] if Path(file).is_file())


def _date(file: str, note: dict[str, Any]) -> None:
    os.utime(file, (note["endtime"], note["endtime"]))


def _encoded(file: str) -> str:
    """The name under which Snakemake keeps its note of a file."""
    return urlsafe_b64encode(file.encode()).decode()


def _decoded(name: str) -> str:
    try:
        return urlsafe_b64decode(name).decode()
    except ValueError:
        return ""  # a path too long for one name; none of ours is
