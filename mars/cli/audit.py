"""Verbs that say where results came from, what would run now, what it costs, and what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mars.audit.accept import accept as enter
from mars.audit.accept import candidates, code_changes
from mars.audit.cells import Tables
from mars.audit.record_graph import RecordGraph
from mars.audit.records import restore_records
from mars.audit.report import audit_all, audit_cell
from mars.cli.common import TINY, Configs, Root, app
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.planning.gpu_results import read_gpu_results
from mars.planning.gpu_speed import GpuSpeed
from mars.planning.plan import PlannedJob, estimates, jobs, reason
from mars.planning.price import Prices
from mars.planning.price_table import price_table
from mars.publishing.ledger import commit, save


@app.command()
def audit(
    table: Annotated[str, typer.Argument(help="e.g. table2")] = "",
    row: Annotated[str, typer.Argument(help='e.g. "0.5B MARS B=4"')] = "",
    column: Annotated[str, typer.Argument(help="e.g. GSM8K")] = "",
    quantity: Annotated[str | None, typer.Option(help="default: the row's first")] = None,
    every: Annotated[bool, typer.Option("--all", help="every cell of every artefact")] = False,
    samples: Annotated[bool, typer.Option(help="also list the questions behind a cell")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Trace a number back to its data, re-hashing on the way: verified, stale, changed, missing."""

    if not every and not (table and row and column):
        raise UserError("name a table, a row and a column, or say --all.")
    experiment = load_experiment(*config)
    restore_records(root / "results" / experiment.experiment)
    tables = Tables(RecordGraph(experiment, root))
    if every:
        word, lines, plain = audit_all(tables)
    else:
        word, lines, plain = audit_cell(tables, tables.find(table, row, column, quantity), samples)
    print(json.dumps(plain, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
    raise typer.Exit(word != "verified")


@app.command()
def why(
    target: Annotated[str, typer.Argument(help="part of a job's name, e.g. train or table2")] = "",
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Say for each job why it would run now, or that it would not."""
    experiment = load_experiment(*config)
    planned = _jobs_named(target, config, root)
    for job in planned:
        if job.runs or target:
            print(reason(job, experiment, root))
    if not target and not any(job.runs for job in planned):
        print("Nothing to be done.")


def _jobs_named(target: str, config: list[Path], root: Path) -> list[PlannedJob]:
    """The jobs whose name has ``target`` in it, or whose record it is."""
    found = [job for job in jobs(config, root) if target in job.name or target == str(job.record)]
    if not found:
        raise UserError(f"no job's name has {target!r} in it; `mars why` lists all.")
    return found


@app.command()
def accept(
    job: Annotated[str, typer.Argument(help="part of a job's name, e.g. train or table2")],
    because: Annotated[str, typer.Option(help="why the change of code changes no result")],
    prove: Annotated[
        bool, typer.Option("--prove", help="run the stage of ci under both commits and compare")
    ] = False,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Let results stand whose code has changed without changing them; it goes into git.

    Only a change of code can be accepted: changed data, configuration and packages run again.
    """
    from mars.audit.proof import prove as compare

    experiment = load_experiment(*config)
    chosen = candidates(_jobs_named(job, config, root), experiment, root)
    print("".join(dict.fromkeys(map(code_changes, chosen))))
    proofs = {}
    for stage, then in dict.fromkeys((one.job.stage, one.commit) for one in chosen if prove):
        if then is None:
            raise UserError("a record was made from code that no commit holds; it has no proof.")
        proofs[stage] = compare(stage, then)
    for one in chosen:
        enter([one], experiment, root, because, proofs.get(one.job.stage))
        proof = ", proved on ci" if one.job.stage in proofs else ""
        print(f"{one.job.name}: accepted{proof}: {because}")


@app.command()
def plan(config: Configs = TINY, root: Root = Path(".")) -> None:
    """Print what a run would do: jobs by stage, why, and what it would cost."""
    from mars.paper.published import training_hours

    experiment = load_experiment(*config)
    planned = jobs(config, root)
    if not any(job.runs for job in planned):
        print("Nothing to be done.")
        return
    for job in planned:
        if job.runs:
            print(reason(job, experiment, root))
    speed = GpuSpeed(read_gpu_results(root))
    prices = Prices(experiment, speed, root / "results" / experiment.experiment)
    costs = price_table(planned, prices, training_hours())
    print("", *(costs or estimates(planned, experiment, root)), sep="\n")


@app.command()
def ledger(config: Configs = TINY) -> None:
    """Pack finished results for git; enter them into DVC's ledger, where dvc.yaml is about them."""

    experiment = load_experiment(*config)
    print(save(experiment))
    print(commit(Path("results") / experiment.experiment))


@app.command()
def questions(config: Configs = TINY, root: Root = Path(".")) -> None:
    """Write a page of all questions and answers, to which the numbers of the report lead."""
    from mars.publishing.questions import write_questions

    print(write_questions(load_experiment(*config), root))


@app.command()
def push(config: Configs = TINY) -> None:
    """Bring an experiment's large folders to DVC's storage: the one of DVC_REMOTE, if it is set."""
    from mars.publishing.storage import push as run

    print(run(Path("results") / load_experiment(*config).experiment))


@app.command()
def pull(config: Configs = TINY) -> None:
    """Bring an experiment's large folders back from DVC's storage, as dvc.lock has them."""
    from mars.publishing.storage import pull as run

    print(run(Path("results") / load_experiment(*config).experiment))


@app.command()
def export_crate(config: Configs = TINY, root: Root = Path(".")) -> None:
    """Describe an experiment's results as an RO-Crate (Process Run Crate), for other tools."""
    from mars.publishing.crate import export_crate as run

    print(run(load_experiment(*config), root))


@app.command()
def show(
    config: Configs,
    results: Annotated[Path, typer.Option(help="folder of all results")] = Path("results"),
) -> None:
    """Print the main table of an experiment and the files it wrote."""
    from mars.paper.tables.terminal import show as run

    run(results / load_experiment(*config).experiment)
