"""Changes of code that somebody has accepted as changing no result, so that nothing runs again.

They stand in ``provenance/accepted.jsonl`` of an experiment's results, which is in git. An entry
says that the code at one fingerprint computes what the code at another one computed: who says so,
when, why, and how it was proved, if it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mars.provenance.files import read_jsonl, write_jsonl

FILE = "provenance/accepted.jsonl"


class Accepted(BaseModel):
    """One accepted change of code.

    Attributes:
        job: stage and target, as in the plan.
        was, now: fingerprints of the code that made the result and of the code that was accepted.
        commit_then, commit_now: where they can be looked at; None outside of git.
        because: the reason given.
        by, at: who accepted it, and when (ISO 8601).
        proof: how it was shown; None if it rests on the reason alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    job: str
    was: str
    now: str
    commit_then: str | None
    commit_now: str | None
    because: str
    by: str
    at: str
    proof: dict[str, Any] | None = None


def read_accepted(results: Path) -> list[Accepted]:
    """What was accepted in an experiment's folder of results, oldest first."""
    file = results / FILE
    return [Accepted.model_validate(row) for row in read_jsonl(file)] if file.is_file() else []


def add_accepted(results: Path, entries: list[Accepted]) -> None:
    """Enter accepted changes."""
    rows = [entry.model_dump() for entry in (*read_accepted(results), *entries)]
    write_jsonl(results / FILE, rows)


def accepted_as(results: Path, job: str, code: str) -> Accepted | None:
    """The entry by which a job's present code counts as that of its record, if there is one."""
    entries = (one for one in read_accepted(results) if (one.job, one.now) == (job, code))
    return max(entries, key=lambda entry: entry.at, default=None)
