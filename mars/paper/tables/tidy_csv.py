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
Line = Mapping[str, str]
"""A line of such a CSV, by column."""


def as_csv(cells: Iterable[TableCell]) -> str:
    """One cell per line; no field is empty."""
    cells = list(cells)
    extra = list(dict.fromkeys(name for cell in cells for name in cell.extra))
    rows = []
    for cell in cells:
        names = (cell.scale, cell.row, cell.model or NOT_RUN, cell.setting or NOT_RUN)
        published = NONE if cell.published is None else cell.published
        rows.append(
            (
                *(*names, cell.benchmark, cell.quantity),
                *_value_and_error(cell.ours),
                published if isinstance(published, str) else round(published, 4),
                _counted(cell.ours),
                *(cell.extra.get(name, NONE) for name in extra),
            )
        )
    return csv_text((*COLUMNS, *extra), rows)


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


def _value_and_error(ours: Measured | str | None) -> tuple[float | str, float | str]:
    if isinstance(ours, Measured):
        return round(ours.value, 6), NONE if ours.stderr is None else round(ours.stderr, 6)
    return (NOT_RUN, NOT_RUN) if ours is None else (ours, NONE)


def _counted(ours: Measured | str | None) -> int | str:
    if ours is None:
        return NOT_RUN
    return ours.n if isinstance(ours, Measured) and ours.n is not None else NONE
