"""What a run would do now, why, and what it would cost; Snakemake decides, the records explain."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mars.config.experiment import Experiment, load_experiment
from mars.errors import UserError
from mars.planning.differences import differences
from mars.planning.jobs import WILDCARDS, job_of
from mars.provenance.files import readable_size, sha256_file
from mars.provenance.fingerprint import project
from mars.provenance.record import read_record
from mars.provenance.stage import Target, job_name


@dataclass(frozen=True)
class PlannedJob:
    """One job of the workflow.

    Attributes:
        stage, target: what is run, and for what.
        record: path of its provenance record, which may not exist yet.
        runs: whether Snakemake would run it now.
        status: what Snakemake says about the record.
    """

    stage: str
    target: Target
    record: Path
    runs: bool
    status: str

    @property
    def name(self) -> str:
        """Stage and target, e.g. ``train mars-b4-small``."""
        return job_name(self.stage, self.target)


def jobs(configs: Sequence[Path], root: Path) -> list[PlannedJob]:
    """All jobs of an experiment, in no particular order, by a dry run in ``root``.

    Raises:
        UserError: the workflow cannot be planned; the sentence is Snakemake's.
    """
    command = [*snakemake_command(project(), configs), "--summary"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the workflow cannot be planned: {done.stderr.strip() or done.stdout}")
    experiment = load_experiment(*configs)
    rows = (line.split("\t") for line in done.stdout.splitlines()[1:])
    return [
        PlannedJob(stage.name, target, Path(root, file), planned == "update pending", status)
        for file, _, rule, _, status, planned in rows
        if "/provenance/" in file
        for stage, target in [job_of(experiment, rule, _wildcards(rule, Path(file)))]
    ]


def snakemake_command(project: Path, configs: Sequence[Path]) -> list[str]:
    """The workflow of a checkout on an experiment, to be run in any folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")]
    command += ["--profile", str(project / "workflow/profiles/default"), "--nolock"]
    return [*command, "--configfile", *(str(Path(path).resolve()) for path in configs)]


def _wildcards(rule: str, record: Path) -> dict[str, str]:
    """The wildcards of a job's rule, from the path of its record: ``provenance/<rule>/...``."""
    below = record.with_suffix("").parts[record.parts.index("provenance") + 2 :]
    keys = WILDCARDS.get(rule, ())
    values = below if len(keys) > 1 else ["/".join(below)]  # a repository has an owner and a name
    return dict(zip(keys, values, strict=bool(keys)))


def reason(job: PlannedJob, experiment: Experiment, root: Path) -> str:
    """Why a job would run now, or that it would not: one sentence."""
    if not job.runs:
        return f"{job.name}: will not run; nothing it depends on has changed."
    if not job.record.is_file():
        return f"{job.name}: has not been run yet."
    record = read_record(job.record)
    missing = [name for name in record["outputs"] if not (root / name).is_file()]
    causes = list(map(str, differences(record, experiment, root)))
    causes += [f"{name} is missing" for name in missing]
    causes += [f"{name} has changed" for name in changed_inputs(record, root)]
    if not causes and job.status not in ("ok", "updated input files"):
        causes = [f"its rule ({job.status})"]
    return f"{job.name}: {'; '.join(causes) or 'what it is made from will be made again'}."


def changed_inputs(record: dict[str, Any], root: Path) -> list[str]:
    """Inputs of a recorded job that are there with another content."""
    return [
        name
        for name, digest in record["inputs"].items()
        if (root / name).is_file() and sha256_file(root / name) != digest
    ]


def estimates(planned: list[PlannedJob], experiment: Experiment, root: Path) -> list[str]:
    """A table of the stages that would run: jobs, time and disk as earlier records have them.

    A job that ran before is taken to cost what it did; another one, the mean of its stage in this
    experiment. Where there is neither, the table says so.
    """
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in (root / "results" / experiment.experiment / "provenance").rglob("*.json"):
        record = read_record(path)
        if "spec" in record:
            known[record["spec"]["stage"]].append(record)
    running: dict[str, list[PlannedJob]] = defaultdict(list)
    for job in planned:
        if job.runs:
            running[job.stage].append(job)
    lines = [f"{'stage':<16} {'jobs':>4} {'time':>12} {'disk':>12}"]
    total_seconds = 0.0
    for stage, members in running.items():
        costs = [_cost(job, known[stage]) for job in members]
        seconds = [cost[0] for cost in costs if cost]
        size = [cost[1] for cost in costs if cost and cost[1] is not None]
        total_seconds += sum(seconds)
        time = readable_time(sum(seconds)) if len(seconds) == len(costs) else "unknown"
        disk = readable_size(sum(size)) if len(size) == len(costs) else "unknown"
        lines.append(f"{stage:<16} {len(members):>4} {time:>12} {disk:>12}")
    count = sum(map(len, running.values()))
    return [
        *lines,
        f"{'all':<16} {count:>4} {readable_time(total_seconds):>12} (known, one after another)",
    ]


def _cost(job: PlannedJob, of_stage: list[dict[str, Any]]) -> tuple[float, float | None] | None:
    """Seconds and bytes of a job, from its own record or the mean of its stage's."""
    records = [read_record(job.record)] if job.record.is_file() else of_stage
    if not records:
        return None
    sizes = [record["output_bytes"] for record in records if "output_bytes" in record]
    return mean(record["seconds"] for record in records), mean(sizes) if sizes else None


def readable_time(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
