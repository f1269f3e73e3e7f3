"""A table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from mars.paper.tables.table import Table


def as_markdown(table: Table) -> str:
    """Title, caption, a table per block, notes."""
    parts = [f"# {table.title}", table.caption]
    for block in table.pivoted():
        if block.title:
            parts.append(f"## {block.title}")
        head = list(table.stub)
        head += [
            name for title in block.columns for name in (title, "paper")[: 1 + table.has_paper]
        ]
        align = ["---"] * len(table.lines) + ["---:"] * (len(head) - len(table.lines))
        body = [[*stub, *table.texts(cells)] for stub, cells in block.lines]
        parts.append(pipe_table([map(_bare, row) for row in (head, align, *body)]))
    parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def pipe_table(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table of cells that hold no bare ``|``: its head, the alignment, its body."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bare(text: str) -> str:
    return text.replace("|", "\\|")
