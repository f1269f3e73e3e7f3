"""Accepting a change of code that changes no result, so that what it touches need not run again."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.planning.differences import differences, spec_of
from mars.planning.plan import PlannedJob, changed_inputs
from mars.provenance.accepted import Accepted, add_accepted
from mars.provenance.fingerprint import project
from mars.provenance.record import git_state, read_record
from mars.stages import stage_named


@dataclass(frozen=True)
class Candidate:
    """A job that would run again for a change of code alone.

    Attributes:
        record: its provenance record, as a dictionary.
        modules: of which the reached code changed.
    """

    job: PlannedJob
    record: dict[str, Any]
    modules: Sequence[str]

    @property
    def commit(self) -> str | None:
        """The commit that holds the code of the record; None if no commit does."""
        code = self.record["code"]
        return None if code["dirty"] else code["commit"]


def candidates(jobs: Sequence[PlannedJob], experiment: Experiment, root: Path) -> list[Candidate]:
    """The jobs of which only the code has changed.

    Raises:
        UserError: none of them has, or something else has changed in one of them.
    """
    found = []
    for job in jobs:
        if not job.record.is_file():
            continue
        record = read_record(job.record)
        changes = differences(record, experiment, root)
        other = [str(one) for one in changes if one.kind != "code"]
        other += [f"{name} has changed" for name in changed_inputs(record, root)]
        if other:
            raise UserError(
                f"{job.name}: {'; '.join(other)}. Only a change of code can be accepted: run the "
                "job again, or name another one."
            )
        if changes:
            found.append(Candidate(job, record, changes[0].items))
    if not found:
        raise UserError("no such job has changed code, so there is nothing to accept.")
    return found


def code_changes(candidate: Candidate) -> str:
    """What changed in the candidate's modules since the commit of its record, as git shows it."""
    if candidate.commit is None:
        return f"{candidate.job.name}: its record was made from code that no commit holds.\n"
    files = [f"{module.replace('.', '/')}*" for module in candidate.modules]
    return _git("diff", candidate.commit, "--", *files)


def accept(
    chosen: Sequence[Candidate],
    experiment: Experiment,
    root: Path,
    because: str,
    proof: dict[str, Any] | None = None,
) -> None:
    """Enter that the present code of these jobs computes what that of their records computed."""
    entries = [
        Accepted(
            job=candidate.job.name,
            was=spec_of(candidate.record).code,
            now=stage_named(candidate.job.stage).reached.fingerprint,
            commit_then=candidate.record["code"]["commit"],
            commit_now=git_state()["commit"],
            because=because,
            by=_git("config", "user.name").strip() or "unknown",
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            proof=proof,
        )
        for candidate in chosen
    ]
    add_accepted(root / "results" / experiment.experiment, entries)


def _git(*arguments: str) -> str:
    """What git says of the project's checkout; nothing outside of one."""
    command = ["git", "-C", str(project()), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:
        return ""
