"""The verb that runs recorded jobs again and compares what comes out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mars.audit.cells import CellLine, Tables, agrees
from mars.audit.compare import ERRORS, WORDS
from mars.audit.packed import OF_SAMPLES
from mars.audit.record_graph import RecordGraph
from mars.audit.records import restore_records
from mars.audit.replay import Outcome, Replays, Task, price, worst
from mars.audit.replay_choice import behind_cell, drawn, named, numbers_on, with_chain
from mars.audit.replays import add_replay
from mars.cli.common import TINY, Configs, Root, app
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.planning.differences import spec_of
from mars.planning.plan import readable_time
from mars.provenance.files import read_json, read_jsonl


@app.command()
def replay(
    what: Annotated[
        list[str] | None, typer.Argument(help='table, row and column; or a job: "train ar-small"')
    ] = None,
    quantity: Annotated[
        str | None, typer.Option(help="of a cell; default: the row's first")
    ] = None,
    chain: Annotated[bool, typer.Option("--chain", help="also all that they rest on")] = False,
    sample: Annotated[int, typer.Option(help="draw so many jobs, by how much rests on each")] = 0,
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
    at_commit: Annotated[
        bool, typer.Option("--at-commit", help="run the recorded code, not the present one")
    ] = False,
    scratch: Annotated[
        Path | None,
        typer.Option(help="empty folder for what is made, kept; default: a temporary one"),
    ] = None,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Run the jobs behind a number again and compare: identical, within tolerance, different."""
    experiment = load_experiment(*config)
    results = root / "results" / experiment.experiment
    restore_records(results)
    tables = Tables(RecordGraph(experiment, root))
    cell, tasks = _chosen(tables, what or [], quantity, sample, seed)
    everything = with_chain(tables.records, tasks, cell=cell is not None)
    tasks = everything if chain else tasks
    outcomes = []
    with _folder(scratch) as folder, Replays(tables.records, folder, at_commit) as replays:
        left = _not_possible(replays, tasks) if cell is not None and not chain else {}
        tasks = [task for task in tasks if task not in left]
        lines = [*_left_out(tables.records, left, everything), *_announced(tables.records, tasks)]
        print("\n".join(lines), flush=True)
        for task in tasks:
            outcome = replays.run(task)
            outcomes.append(outcome)
            print("\n".join(_told(outcome)), flush=True)
            if outcome.compared:
                add_replay(results, outcome.entry(tables.records.records[task.record]["sha256"]))
        words = [outcome.word for outcome in outcomes]
        if cell is not None and (found := _number_again(tables, cell, replays, outcomes, left)):
            line, word = found
            print(line)
            words = [word, *(one for one in words if one != "not compared")]
    print(worst(words))
    raise typer.Exit(worst(words) not in WORDS[:2])


def _chosen(
    tables: Tables, what: list[str], quantity: str | None, sample: int, seed: int
) -> tuple[CellLine | None, list[Task]]:
    """The cell, if one is asked for, and the jobs to run."""
    if not tables.records.records:
        raise UserError(f"{tables.records.experiment.experiment} has no records; run it first.")
    if sample > 0 and not what:
        return None, drawn(tables.records, numbers_on(tables), sample, seed)
    if len(what) == 1 and not sample:
        return None, named(tables.records, what[0])
    if len(what) == 3 and not sample:
        cell = tables.find(what[0], what[1], what[2], quantity)
        return cell, behind_cell(tables, cell)
    raise UserError("name a table, a row and a column, or one job in quotes, or say --sample <n>.")


def _not_possible(replays: Replays, tasks: list[Task]) -> dict[Task, str]:
    """Of the jobs behind a cell those that cannot run here, with what they lack; none if all."""
    lacking = {task: lack for task in tasks if (lack := replays.lacks(task))}
    return lacking if len(lacking) < len(tasks) else {}


def _left_out(records: RecordGraph, left: dict[Task, str], everything: list[Task]) -> list[str]:
    """What cannot run here and why, what can, and what would run it all."""
    if not left:
        return []
    lines = [
        f"{spec_of(records.records[task.record]).job} cannot run here: {lack} is not here."
        for task, lack in left.items()
    ]
    how = (
        "The rest is made from what is here, without a model. To make all of it again, from the "
        f"data on, say --chain: {_priced(records, everything)}."
    )
    return [*lines, how, ""]


@contextmanager
def _folder(scratch: Path | None) -> Iterator[Path]:
    """The folder that jobs run in."""
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="mars-replay-") as folder:
            yield Path(folder)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    if any(scratch.iterdir()):
        raise UserError(f"{scratch} is not empty; name another folder for what is made again.")
    yield scratch


def _announced(records: RecordGraph, tasks: list[Task]) -> list[str]:
    """What will run, and what it took when it was recorded."""
    seconds = [price(records, task) for task in tasks]
    lines = [
        f"  {_name(spec_of(records.records[task.record]).job, task):<60} {readable_time(one):>12}"
        for task, one in zip(tasks, seconds, strict=True)
    ]
    return [f"{_priced(records, tasks, ' to run again')}:", *lines, ""]


def _priced(records: RecordGraph, tasks: list[Task], what: str = "") -> str:
    """How many jobs, and what they took when they were recorded."""
    count = f"{len(tasks)} job{'s' * (len(tasks) != 1)}{what}"
    seconds = sum(price(records, task) for task in tasks)
    return f"{count}, {readable_time(seconds)} by the records"


def _name(job: str, task: Task) -> str:
    """A job, and which part of it."""
    return f"{job}: {', '.join(task.cells)}" if task.cells else job


def _told(outcome: Outcome) -> list[str]:
    """A job's word, and what is behind it where that is not plain."""
    job = _name(outcome.job, outcome.task)
    if outcome.problem:
        return [f"not run           {job}: {outcome.problem}"]
    count = f"{len(outcome.compared)} file{'s' * (len(outcome.compared) != 1)}"
    lines = [f"{outcome.word:<16}  {job} ({count}, {readable_time(outcome.seconds)})"]
    if outcome.elsewhere:
        lines.append(f"{'':<18}{outcome.elsewhere}")
    if outcome.other_code:
        hint = "with the present code, which is not the record's; --at-commit runs that one"
        lines.append(f"{'':<18}{hint}")
    for one in sorted(outcome.compared, key=lambda one: -WORDS.index(one.word)):
        if one.word != WORDS[0]:
            lines.append(f"{'':<18}{one.word}: {one.file}: {one.text}")
    return lines


def _number_again(
    tables: Tables,
    cell: CellLine,
    replays: Replays,
    outcomes: list[Outcome],
    left: dict[Task, str],
) -> tuple[str, str] | None:
    """The cell's number from the evaluations that were made again, or else from the recorded
    answers; None where it is no score."""
    files = tables.sources(cell)
    again = {
        file: read_json(outcome.folder / file)
        for outcome in outcomes
        for file in files.get(outcome.task.record, [])
        if not outcome.problem
    }
    added = {
        file: tables.from_answers(
            file, read_jsonl(replays.recorded(str(Path(file).with_suffix(OF_SAMPLES))))
        )
        for task in left
        for file in files[task.record]
    }
    value = tables.number(cell, again | added) if again or added else None
    if value is None:
        return None
    word = WORDS[0] if agrees(cell.value, value) else WORDS[-1]
    if word == WORDS[-1] and not added and any(outcome.elsewhere for outcome in outcomes):
        near = abs(float(cell.value) - value) <= ERRORS * math.sqrt(2) * float(cell.stderr or 0)
        word = WORDS[1] if near else word
    how = "from the recorded answers" if added else "again"
    return f"{word:<16}  {cell.title}: {cell.value} in the table, {value:g} {how}", word
