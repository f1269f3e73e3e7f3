"""A table as accessible HTML: captions, scopes, and a box to scroll in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from mars.paper.tables.table import NOT_RUN, Block, Table, TableCell

Address = Callable[[TableCell], str | None]
"""Where a cell's number leads, if anywhere."""


def as_html(table: Table, title: str, address: Address = lambda cell: None) -> Markup:
    """Caption, a table per block, notes. Each table is named ``title``, with its block's heading.

    The paper's columns and cells that were not run get classes, so that ours stand out.
    """
    parts = [Markup("<p>{}</p>").format(table.caption)]
    for block in table.pivoted():
        if block.title:
            parts.append(Markup("<h4>{}</h4>").format(block.title))
        name = f"{title}, {block.title}" if block.title else title
        parts.append(_block(table, block, name, address))
    notes = [Markup("<li>{}</li>").format(note) for note in table.notes]
    parts.append(Markup("<ul>\n{}\n</ul>").format(Markup("\n").join(notes)))
    return Markup("\n").join(parts)


def _block(table: Table, block: Block, name: str, address: Address) -> Markup:
    ours_and_paper = ("number", "number paper")[: 1 + table.has_paper]
    classes = [""] * len(table.lines) + [*ours_and_paper] * len(block.columns)
    body = [_row([*stub, *_linked(table, cells, address)], classes) for stub, cells in block.lines]
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{0}"><table>'
        '<caption class="hidden">{0}</caption>\n<thead>{1}</thead>\n<tbody>\n{2}\n</tbody>'
        "</table></div>"
    ).format(name, _row(table.heads(block), classes, head=True), Markup("\n").join(body))


def _linked(table: Table, cells: Sequence[TableCell | None], address: Address) -> list[str]:
    """A line as readers see it; ours leads where its cell's address says."""
    texts, step = table.texts(cells), 1 + table.has_paper
    for place, cell in enumerate(cells):
        if cell and (target := address(cell)):
            link = Markup('<a href="{}">{}</a>').format(target, texts[place * step])
            texts[place * step] = link
    return texts


def _row(texts: list[str], classes: list[str], head: bool = False) -> Markup:
    cell = Markup('<th scope="col"{}>{}</th>' if head else "<td{}>{}</td>")
    cells = []
    for text, names in zip(texts, classes, strict=True):
        names = f"{names} not-run".strip() if text == NOT_RUN else names
        cells.append(cell.format(Markup(' class="{}"').format(names) if names else "", text))
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))
