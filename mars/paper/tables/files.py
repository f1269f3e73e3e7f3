"""The files of a table: one rendering for each reader, and the record that they all show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mars.paper.tables.latex import as_latex
from mars.paper.tables.table import Table, write_record
from mars.paper.tables.tidy_csv import as_csv
from mars.provenance.files import write_atomic


def write(table: Table, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.tex`` and ``.jsonl`` into ``folder``, made if needed."""
    contents = {"csv": as_csv(table.cells), "md": as_markdown(table), "tex": as_latex(table)}
    for suffix, content in contents.items():
        write_atomic(folder / f"{table.name}.{suffix}", content)
    write_record(table, folder / f"{table.name}.jsonl")
    return [folder / f"{table.name}.{suffix}" for suffix in (*contents, "jsonl")]


def as_markdown(table: Table) -> str:
    """Title, caption, a table per block, notes."""
    parts = [f"# {table.title}", table.caption]
    for block in table.pivoted():
        head = table.heads(block)
        align = ["---"] * len(table.lines) + ["---:"] * (len(head) - len(table.lines))
        body = [[*stub, *table.texts(cells)] for stub, cells in block.lines]
        rows = [[text.replace("|", "\\|") for text in row] for row in (head, align, *body)]
        parts += [f"## {block.title}"] if block.title else []
        parts.append(pipe_table(rows))
    parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def pipe_table(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table of cells that hold no bare ``|``: its head, the alignment, its body."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
