"""The files of a table: one rendering for each reader, and the record that they all show."""

from __future__ import annotations

from pathlib import Path

from mars.paper.tables.latex import as_latex
from mars.paper.tables.markdown import as_markdown
from mars.paper.tables.table import Table, write_record
from mars.paper.tables.tidy_csv import as_csv
from mars.provenance.files import write_atomic


def write(table: Table, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.tex`` and ``.jsonl`` into ``folder``, made if needed.

    Returns:
        The four files.
    """
    contents = {"csv": as_csv(table.cells), "md": as_markdown(table), "tex": as_latex(table)}
    for suffix, content in contents.items():
        write_atomic(folder / f"{table.name}.{suffix}", content)
    write_record(table, folder / f"{table.name}.jsonl")
    return [folder / f"{table.name}.{suffix}" for suffix in (*contents, "jsonl")]
