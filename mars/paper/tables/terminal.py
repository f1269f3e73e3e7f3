"""The tables of an experiment in the terminal, at most 120 columns wide."""

from __future__ import annotations

import csv
import textwrap
from itertools import groupby
from pathlib import Path

from mars.errors import UserError
from mars.paper.claims.report import short
from mars.paper.published import AVERAGE, BENCHMARKS
from mars.paper.tables.evaluated import DECLARATIONS
from mars.paper.tables.writers import NONE, NOT_RUN, QUANTITIES

SHOWN = (2, 4)  # the other tables are files
WIDTH = 120
STUB = 22  # "tokens/forward", then whose number it is
CELL = (WIDTH - STUB) // 7


def show(results: Path) -> None:
    """Print the experiment's main tables, the verdicts on the claims, and the files it wrote.

    Args:
        results: folder of the experiment, with ``tables/table<N>.{csv,md}``.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    tables = Path(results) / "tables"
    numbers = [number for number in SHOWN if (tables / f"table{number}.csv").is_file()]
    scores = Path(results) / "metrics.json"
    if not numbers and not scores.is_file():
        raise UserError(f"{tables} has no table yet; run the experiment first (make reproduce).")
    for number in numbers:
        print(_table(tables, number), end="\n\n")
    if (claims := Path(results) / "claims.json").is_file():
        print(short(claims, WIDTH), end="\n\n")
    print("Written:")
    for pattern in ("claims.*", "comparison.*", "tables/*.*", "figures/*.*"):
        for file in sorted(Path(results).glob(pattern)):
            print(f"  {file}")
    if scores.is_file():
        print(f"  {scores}, the scores of all benchmarks")


def _table(tables: Path, number: int) -> str:
    """One table: under each row's name, our numbers and the paper's, quantity by quantity."""
    with open(tables / f"table{number}.csv", newline="") as stream:
        cells = list(csv.DictReader(stream))
    rule = "-" * WIDTH
    head = " " * STUB + "".join(f"{title:>{CELL}}" for title in (*BENCHMARKS, AVERAGE))
    lines = [f"Table {number}. {DECLARATIONS[number].caption}", rule, head]
    for scale, of_scale in groupby(cells, key=lambda cell: cell["scale"]):
        lines += [rule]
        for label, of_row in groupby(of_scale, key=lambda cell: cell["row"]):
            lines += _row(f"{scale}  {label}", list(of_row))
    return "\n".join([*lines, rule, *_notes(tables / f"table{number}.md")])


def _row(title: str, cells: list[dict[str, str]]) -> list[str]:
    """The lines of one row; one line if nothing of it was run."""
    if all(cell["value"] == NOT_RUN for cell in cells):
        return [f"{title}: {NOT_RUN}"]
    lines = [title]
    for quantity, group in groupby(cells, key=lambda cell: cell["quantity"]):
        of_quantity = {cell["benchmark"]: cell for cell in group}
        name, form = QUANTITIES[quantity]
        ordered = [of_quantity[benchmark] for benchmark in (*BENCHMARKS, AVERAGE)]
        ours = [_number(cell, form) for cell in ordered]
        paper = [
            NONE if cell["published"] == NONE else format(float(cell["published"]), form)
            for cell in ordered
        ]
        for label, whose, numbers in ((name, "ours", ours), ("", "paper", paper)):
            stub = f"{label:>{STUB - 7}}  {whose:<5}"
            lines.append(stub + "".join(f"{text:>{CELL}}" for text in numbers))
    return lines


def _number(cell: dict[str, str], form: str) -> str:
    if cell["value"] == NOT_RUN:
        return NOT_RUN
    error = cell["stderr"]
    if error != NONE:
        error = format(float(error), form.lstrip("+"))
    return f"{format(float(cell['value']), form)} ± {error}"


def _notes(markdown: Path) -> list[str]:
    """The notes below the table, wrapped."""
    if not markdown.is_file():
        return []
    notes = [line for line in markdown.read_text().splitlines() if line.startswith("- ")]
    return [
        wrapped for note in notes for wrapped in textwrap.wrap(note, WIDTH, subsequent_indent="  ")
    ]
