"""Which jobs are run again: those behind a cell, one that is named, or some that are drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mars.audit.cells import CellLine, Tables
from mars.audit.record_graph import RecordGraph
from mars.audit.replay import Task
from mars.errors import UserError
from mars.paper.tables.table import NOT_RUN
from mars.planning.differences import spec_of


def behind_cell(tables: Tables, cell: CellLine) -> list[Task]:
    """The jobs that a cell is made by; of an evaluation only what the cell is from.

    Raises:
        UserError: nothing has been run for this cell.
    """
    if cell.value == NOT_RUN:
        raise UserError(f"{cell.title} was not run, so there is nothing to replay.")
    return [
        Task(record, tuple(f"{Path(file).parent.name}/{Path(file).stem}" for file in files))
        for record, files in reversed(tables.sources(cell).items())
    ]


def named(records: RecordGraph, name: str) -> list[Task]:
    """The job of this name, or of which this is a part.

    Raises:
        UserError: there is none, or more than one.
    """
    jobs = {spec_of(record).job: key for key, record in records.records.items()}
    found = [name] if name in jobs else [job for job in jobs if name in job]
    if len(found) != 1:
        raise UserError(
            f"{len(found) or 'no'} recorded jobs have {name!r} in their name; say one, such as "
            f"{', '.join(sorted(found or jobs)[:5])}."
        )
    return [Task(jobs[found[0]])]


def numbers_on(tables: Tables) -> dict[str, int]:
    """How many cells of the tables rest on each job, by record."""
    numbers = Counter(dict.fromkeys(tables.records.records, 0))
    for cell in tables.cells:
        if cell.value != NOT_RUN:
            table, *sources = tables.sources(cell)  # a table rests on more than one cell does
            behind = (tables.records.behind(source) for source in sources)
            numbers.update({table, *(name for names in behind for name in names)})
    return numbers


def drawn(records: RecordGraph, numbers: Mapping[str, int], number: int, seed: int) -> list[Task]:
    """So many jobs, drawn without replacement; one that more numbers rest on is drawn more often.

    The same records and seed draw the same jobs on every machine.
    """
    chance = random.Random(seed)
    # The largest of u^(1/w) for uniform u: drawing one after the other by weight w (Efraimidis and
    # Spirakis 2006). What no cell rests on, such as a figure, weighs as much as one cell.
    keys = {name: chance.random() ** (1 / max(1, numbers[name])) for name in sorted(numbers)}
    return [Task(name) for name in in_order(records, sorted(keys, key=keys.__getitem__)[-number:])]


def with_chain(records: RecordGraph, tasks: Sequence[Task], cell: bool) -> list[Task]:
    """These jobs, and before them all that they rest on.

    ``cell``: the last of them is the table of a cell, which rests on more than the cell does.
    """
    wanted = {task.record: task for task in tasks}
    ends = tasks[:-1] if cell else tasks
    behind = [name for task in ends for name in records.behind(task.record)]
    return [wanted.get(name, Task(name)) for name in in_order(records, [*behind, *wanted])]


def in_order(records: RecordGraph, names: Iterable[str]) -> list[str]:
    """These records, each after those that it rests on."""
    wanted = list(dict.fromkeys(names))
    order: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [(name, False) for name in reversed(wanted)]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            order[name] = None
        elif name not in seen:
            seen.add(name)
            makers = map(records.maker, records.records[name]["inputs"])
            waiting += [(name, True), *((maker, False) for maker in makers if maker)]
    return [name for name in order if name in wanted]
