"""What a finished experiment hands on beside its results, all of it small enough for git.

``metrics.json``: every score in one file, for ``dvc metrics``. ``snakemake.jsonl``: what Snakemake
noted of each output, without which a clone could neither tell that all is done nor notice a later
change. Large folders are DVC's (``dvc.yaml``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mars.provenance.files import canonical_json, read_json, read_jsonl, write_atomic, write_json

NOTES = Path(".snakemake/metadata")
# Long, and no reason to run a job again; the command is in the record.
LEFT_OUT = ("shellcmd", "conda_env", "log", "external_jobid")


def save(results: Path) -> None:
    """Write ``metrics.json`` and ``snakemake.jsonl`` into the folder of an experiment.

    Args:
        results: as the workflow names it, ``results/<experiment>``, from its working folder.
    """
    write_json(results / "metrics.json", metrics(results))
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
    write_atomic(results / "snakemake.jsonl", "".join(f"{line}\n" for line in sorted(lines)))


def restore(results: Path) -> None:
    """Give Snakemake back what it noted of outputs that came from a clone or a download.

    Files that this working folder has a note of are left alone.
    """
    for file, note in _saved_notes(results):
        if not (NOTES / _encoded(file)).exists():
            # Without this folder Snakemake takes the notes for those of an old version.
            (NOTES.parent / "incomplete").mkdir(parents=True, exist_ok=True)
            write_json(NOTES / _encoded(file), note)
            _date(file, note)


def metrics(results: Path) -> dict[str, Any]:
    """model -> setting -> benchmark -> score, its standard error, tokens per forward."""
    found: dict[str, Any] = {}
    for path in sorted(results.glob("evaluations/*/*/*.json")):
        record = read_json(path)
        benchmark, counted = record["cell_spec"]["benchmark"], record["tokens_per_forward"]
        score = record["metrics"][benchmark["metric"]][benchmark["filter"]]
        cell = {"score": score["value"], "stderr": score["stderr"]}
        cell["tokens_per_forward"] = counted and counted["value"]
        settings = found.setdefault(path.parts[-3], {})
        settings.setdefault(path.parts[-2], {})[path.stem] = cell
    return found


def commit(results: Path) -> str:
    """Enter the results into DVC's cache and lock, if ``dvc.yaml`` is about them; what was done."""
    stages = Path("dvc.yaml")
    if not stages.is_file() or f"{results}/" not in stages.read_text():
        return f"dvc.yaml is not about {results}; DVC keeps nothing of it."
    if not Path(".git").exists():
        return "not a git repository; DVC keeps nothing."
    # What was committed is a copy; checking it out again makes it a link, if there are links here.
    for command in (["commit", "--force"], ["checkout", "--relink"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], capture_output=True, text=True
        )
        if done.returncode:
            return f"dvc {command[0]} failed, the results are complete: {done.stderr.strip()}"
    for file, note in _saved_notes(results):
        _date(file, note)
    return f"{results} is in DVC's cache; commit dvc.lock to keep this state."


def _saved_notes(results: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The outputs that are there, each with Snakemake's note of it."""
    saved = results / "snakemake.jsonl"
    for job in read_jsonl(saved) if saved.is_file() else []:
        yield from ((file, job["note"]) for file in job["outputs"] if Path(file).is_file())


def _date(file: str, note: dict[str, Any]) -> None:
    """Date a file to the end of its job; git and DVC date all files to the download."""
    os.utime(file, (note["endtime"], note["endtime"]))


def _encoded(file: str) -> str:
    """The name under which Snakemake keeps its note of a file."""
    return urlsafe_b64encode(file.encode()).decode()


def _decoded(name: str) -> str:
    try:
        return urlsafe_b64decode(name).decode()
    except ValueError:
        return ""  # a path too long for one name; none of ours is
