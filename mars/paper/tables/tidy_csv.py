"""A table as CSV: one cell per line, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mars.paper.tables.table import NONE, NOT_RUN, Measured, TableCell

COLUMNS = (
    *("scale", "row", "model", "setting", "benchmark"),
    *("quantity", "value", "stderr", "published", "n"),
)
SEED_COLUMNS = ("seeds", "by_seed")
Line = Mapping[str, str]
"""A line of such a CSV, by column."""


def as_csv(cells: Sequence[TableCell]) -> str:
    """One cell per line; no field is empty.

    Where a model was trained from several seeds, two more columns say how many, and the number of
    each, between semicolons.
    """
    several = any(_seeds(cell.ours) for cell in cells)
    extra = list(dict.fromkeys(name for cell in cells for name in cell.extra))
    rows = (
        (
            *(cell.scale, cell.row, cell.model or NOT_RUN, cell.setting or NOT_RUN),
            *(cell.benchmark, cell.quantity),
            *_value_and_error(cell.ours),
            round(cell.published, 4) if isinstance(cell.published, float) else cell.published,
            NOT_RUN if cell.ours is None else getattr(cell.ours, "n", None),
            *(cell.extra.get(name) for name in extra),
            *((len(_seeds(cell.ours)) or 1, _by_seed(cell.ours)) if several else ()),
        )
        for cell in cells
    )
    known = ([NONE if value is None else value for value in row] for row in rows)
    return csv_text((*COLUMNS, *extra, *(SEED_COLUMNS if several else ())), known)


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows below their heading."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows((columns, *rows))
    return stream.getvalue()


def read_csv(path: Path) -> list[Line]:
    """The lines of a tidy table."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def full_row_name(line: Line) -> str:
    """The row of a tidy line, with what else tells it from its neighbours in a table of speed."""
    more = [
        f"{name.replace('_', ' ')} {line[name]}"
        for name in ("cache_block", "batch_size")
        if line.get(name, NONE) not in (NONE, "")
    ]
    return f"{line['row']} ({', '.join(more)})" if more else line["row"]


def _value_and_error(ours: Measured | str | None) -> tuple[float | str | None, ...]:
    if isinstance(ours, Measured):
        return round(ours.value, 6), None if ours.stderr is None else round(ours.stderr, 6)
    return (NOT_RUN, NOT_RUN) if ours is None else (ours, None)


def _seeds(ours: Measured | str | None) -> tuple[float, ...]:
    return ours.seeds if isinstance(ours, Measured) else ()


def _by_seed(ours: Measured | str | None) -> str | None:
    return ";".join(str(round(value, 6)) for value in _seeds(ours)) or None
