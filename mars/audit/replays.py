"""What came out when jobs were run again: kept beside the results, and said by the audit.

It stands in ``replays.jsonl`` of an experiment's folder, which is in git. Each line is sealed like
a record; one that was edited counts for nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mars.provenance.files import read_jsonl, write_jsonl
from mars.provenance.record import is_sealed, sealed

FILE = "replays.jsonl"


@dataclass(frozen=True)
class Replayed:
    """One job that was run again.

    Attributes:
        job: stage and target, as in the plan.
        record: of the job, and ``of`` the seal that it had: another run has another one.
        cells: ``<setting>/<benchmark>``, where only these of an evaluation were made again.
        word: what was found, one of :data:`mars.audit.compare.WORDS`.
        files: how many files there were of each word.
        first: the first file that was not identical, and in what.
        code: what was run: a commit, with ``+ edits`` where files had been edited.
        same_code: whether the job reaches the same code there as its record names.
        machine: as in a record.
        at: when it ended (ISO 8601).
    """

    job: str
    record: str
    of: str
    cells: list[str]
    word: str
    files: dict[str, int]
    first: str | None
    code: str
    same_code: bool
    machine: dict[str, Any]
    seconds: float
    at: str

    @property
    def date(self) -> str:
        return self.at[:10]


def read_replays(results: Path) -> list[Replayed]:
    """The replays noted in an experiment's folder of results, oldest first."""
    file = results / FILE
    rows = read_jsonl(file) if file.is_file() else []
    content = [{k: v for k, v in row.items() if k != "sha256"} for row in rows if is_sealed(row)]
    return [Replayed(**row) for row in content]


def add_replay(results: Path, entry: Replayed) -> None:
    """Note a replay."""
    file = results / FILE
    rows = read_jsonl(file) if file.is_file() else []
    write_jsonl(file, [*rows, sealed(asdict(entry))])


def latest(replays: list[Replayed], record: str, seal: str) -> list[Replayed]:
    """What is known of a job by replays: the last of all of it, and later ones of single cells."""
    known: dict[str, Replayed] = {}
    for entry in replays:
        if (entry.record, entry.of) == (record, seal):
            known = known if entry.cells else {}
            known |= dict.fromkeys(entry.cells or [""], entry)
    return list({id(entry): entry for entry in known.values()}.values())
