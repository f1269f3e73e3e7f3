"""The main tables of an experiment in the terminal, at most 120 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from mars.errors import UserError
from mars.paper.claims.report import short
from mars.paper.published import AVERAGE, BENCHMARKS
from mars.paper.tables.table import NOT_RUN, Table, TableCell, quantity_title, read_record

SHOWN = ("table2", "table4")  # the other tables are files
WIDTH = 120
STUB = 22  # "tokens/forward", then whose number it is
COLUMN = (WIDTH - STUB) // 7


def show(results: Path) -> None:
    """Print the experiment's main tables, the verdicts on the claims, and the files it wrote.

    Args:
        results: folder of the experiment.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    records = [results / f"tables/{name}.jsonl" for name in SHOWN]
    tables = [read_record(record) for record in records if record.is_file()]
    scores = results / "metrics.json"
    if not tables and not scores.is_file():
        raise UserError(
            f"{results / 'tables'} has no table yet; run the experiment first (make reproduce)."
        )
    for table in tables:
        print(as_text(table), end="\n\n")
    if (claims := results / "claims.json").is_file():
        print(short(claims, WIDTH), end="\n\n")
    print("Written:")
    for pattern in ("claims.*", "comparison.*", "tables/*.*", "figures/*.*"):
        for file in sorted(results.glob(pattern)):
            print(f"  {file}")
    if scores.is_file():
        print(f"  {scores}, the scores of all benchmarks")


def as_text(table: Table) -> str:
    """A table over benchmarks: under a row's name our numbers and the paper's, by quantity."""
    rule = "-" * WIDTH
    head = " " * STUB + "".join(f"{title:>{COLUMN}}" for title in (*BENCHMARKS, AVERAGE))
    lines = [f"{table.title}. {table.caption}", rule, head]
    for scale, of_scale in groupby(table.cells, key=lambda cell: cell.scale):
        lines += [rule]
        for label, of_row in groupby(of_scale, key=lambda cell: cell.row):
            lines += _row(f"{scale}  {label}", list(of_row))
    notes = (textwrap.wrap(f"- {note}", WIDTH, subsequent_indent="  ") for note in table.notes)
    return "\n".join([*lines, rule, *(line for note in notes for line in note)])


def _row(title: str, cells: Iterable[TableCell]) -> list[str]:
    """The lines of one row; one line if nothing of it was run."""
    if all(cell.ours is None for cell in cells):
        return [f"{title}: {NOT_RUN}"]
    lines = [title]
    for quantity, group in groupby(cells, key=lambda cell: cell.quantity):
        of_quantity = {cell.benchmark: cell for cell in group}
        ordered = [of_quantity[benchmark] for benchmark in (*BENCHMARKS, AVERAGE)]
        for label, whose, numbers in (
            (quantity_title(quantity), "ours", [cell.ours_as_read for cell in ordered]),
            ("", "paper", [cell.published_as_read for cell in ordered]),
        ):
            stub = f"{label:>{STUB - 7}}  {whose:<5}"
            lines.append(stub + "".join(f"{text:>{COLUMN}}" for text in numbers))
    return lines
