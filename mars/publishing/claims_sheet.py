"""``CLAIMS.md``: each claim of the paper with the command that tests it alone, and its price.

For whoever checks the results: the claim in the paper's words and in ours, what a test of it runs
and takes by the records, what to expect of a second run, and the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mars.audit.record_graph import RecordGraph
from mars.config.experiment import Experiment
from mars.errors import UserError
from mars.paper.claims.behind import BEHIND
from mars.paper.stage import CLAIMS as STAGE
from mars.paper.tables.files import pipe_table
from mars.paper.tables.table import NONE, NOT_RUN
from mars.planning.plan import readable_time
from mars.provenance.files import read_json, readable_size, write_atomic
from mars.provenance.stage import Inputs, Job, JobSpec

SHEET = "CLAIMS.md"
HEADS = [["#", "Claim", "Verdict", "Jobs", "Time"], ["---:", "---", "---", "---:", "---:"]]
Claim = Mapping[str, Any]
"""A claim with its verdict, as in ``claims.json``."""


@dataclass(frozen=True)
class Price:
    """What the jobs behind a claim took, one after another, by their records.

    Attributes:
        memory: of the job that took the most, in bytes.
        disk: of all that they wrote, in bytes.
    """

    jobs: int
    seconds: float
    memory: int
    disk: int
    machines: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {readable_time(self.seconds)} one after another, at most "
            f"{readable_size(self.memory, 0)} of memory, {readable_size(self.disk, 0)} of disk"
        )


# --- one claim ----------------------------------------------------------------------------------


def files_behind(number: int, experiment: Experiment) -> list[str]:
    """What a test of a claim reads, as the workflow names it.

    Raises:
        UserError: there is no such claim, or the experiment does not test it.
    """
    if number not in BEHIND:
        raise UserError(f"there is no claim {number}; the claims are 1 to {max(BEHIND)}.")
    files = BEHIND[number].files(experiment)
    if not files:
        raise UserError(
            f"{experiment.experiment} does not test claim {number}; choose another experiment."
        )
    return [f"results/{experiment.experiment}/{file}" for file in files]


def judge(number: int, experiment: Experiment, root: Path) -> Claim:
    """A claim with its verdict from what is there, without what the other claims need.

    Its p-value is not corrected for the number of claims (``p_holm``), as those are not tested.

    Raises:
        UserError: something that it needs is not there.
    """
    files = tuple(root / file for file in files_behind(number, experiment))
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(f"{missing[0]} is not here; run `make claim N={number}` first.")
    # As a job is told it, sorted: the order of the scales is seen in a sentence.
    spec = JobSpec.model_validate_json(STAGE.planned(experiment, {}, root).canonical())
    with TemporaryDirectory(prefix="mars-claim-") as folder:
        STAGE.start(Job(spec, Inputs(files), Path(folder)))
        found = read_json(Path(folder, "claims.json"))[number - 1]
    return {key: value for key, value in found.items() if key != "p_holm"}


def in_words(claim: Claim) -> list[str]:
    """A judged claim as lines for the terminal."""
    scope = f" {claim['scope']}" if claim["scope"] else ""
    lines = [f"{claim['number']}. {claim['claim']}", f"Rule: {claim['rule']}"]
    return [*lines, f"Evidence: {claim['evidence']}", f"{claim['verdict']}{scope}"]


# --- all of them --------------------------------------------------------------------------------


def write_sheet(experiment: Experiment, root: Path = Path()) -> Path:
    """Write ``CLAIMS.md`` beside ``claims.json``, from it and the records."""
    results = root / "results" / experiment.experiment
    graph = RecordGraph(experiment, root)
    claims = read_json(results / "claims.json")
    prices = {number: price(graph, one.files(experiment)) for number, one in BEHIND.items()}
    machines = dict.fromkeys(name for one in prices.values() if one for name in one.machines)
    name = experiment.experiment
    parts = [
        f"# The claims of the paper, one by one: {name}",
        f"Written at the end of a run, from `claims.json` and the records. `make claims "
        f"EXPERIMENT={name}` computes all verdicts again from the packed answers, in seconds and "
        "without a model. A command below trains, evaluates or times what one claim takes and no "
        "more; what is there and up to date is not run again. Its price is what the records of its "
        f"jobs say, on: {'; '.join(machines) or 'no machine yet'}. How a verdict is reached: "
        "[docs/comparison.md](../../docs/comparison.md).",
        claims[0]["caveat"],
        pipe_table([*HEADS, *(_line(claim, prices[claim["number"]]) for claim in claims)]),
        *(_section(claim, prices[claim["number"]], name) for claim in claims),
    ]
    write_atomic(results / SHEET, "\n\n".join(parts) + "\n")
    return results / SHEET


def _line(claim: Claim, taken: Price | None) -> list[str]:
    price = [str(taken.jobs), readable_time(taken.seconds)] if taken else [NONE, NONE]
    return [str(claim["number"]), claim["claim"], claim["verdict"], *price]


def price(graph: RecordGraph, files: Iterable[str]) -> Price | None:
    """What the jobs behind some files of a folder of results took; None if a record is missing."""
    makers = [graph.maker(str(graph.results / file)) for file in files]
    if not makers or None in makers:
        return None
    names = dict.fromkeys(job for maker in makers if maker for job in graph.behind(maker))
    records = [graph.records[name] for name in names]
    return Price(
        jobs=len(records),
        seconds=sum(record["seconds"] for record in records),
        memory=max(record.get("peak_memory_bytes", 0) for record in records),
        disk=sum(record.get("output_bytes", 0) for record in records),
        machines=tuple(dict.fromkeys(_machine(record["hardware"]) for record in records)),
    )


def _machine(hardware: Mapping[str, Any]) -> str:
    cores = f"{hardware['processor']}, {hardware['cores']} cores"
    return ", ".join([cores, *dict.fromkeys(hardware["gpus"])])


def _section(claim: Claim, taken: Price | None, name: str) -> str:
    number = claim["number"]
    behind = BEHIND[number]
    quote = [f"> {behind.quote} (abstract)"] if behind.quote else []
    scope = f" {claim['scope']}" if claim["scope"] else ""
    lines = [
        f"- **In the paper:** {behind.paper}",
        f"- **Rule:** {claim['rule']}",
        f"- **Alone:** `make claim N={number} EXPERIMENT={name}`; {taken or 'never run here'}.",
        f"- **Expect** {behind.expect}",
        f"- **Verdict:** **{claim['verdict']}**{scope}. {claim['evidence']}",
    ]
    if not taken and claim["verdict"] == NOT_RUN:
        lines[2:] = [f"- **Verdict:** **not run**; {name} does not measure it."]
    return "\n\n".join([f"## {number}. {claim['claim']}", *quote, "\n".join(lines)])
