"""A table as accessible HTML: captions, scopes, and a box to scroll in."""

from __future__ import annotations

from markupsafe import Markup

from mars.paper.tables.table import NOT_RUN, Block, Table


def as_html(table: Table, title: str) -> Markup:
    """Caption, a table per block, notes. Each table is named ``title``, with its block's heading.

    The paper's columns and cells that were not run get classes, so that ours stand out.
    """
    parts = [Markup("<p>{}</p>").format(table.caption)]
    for block in table.pivoted():
        if block.title:
            parts.append(Markup("<h4>{}</h4>").format(block.title))
        parts.append(_block(table, block, f"{title}, {block.title}" if block.title else title))
    notes = [Markup("<li>{}</li>").format(note) for note in table.notes]
    parts.append(Markup("<ul>\n{}\n</ul>").format(Markup("\n").join(notes)))
    return Markup("\n").join(parts)


def _block(table: Table, block: Block, name: str) -> Markup:
    ours_and_paper = ("number", "number paper")[: 1 + table.has_paper]
    classes = [""] * len(table.lines) + [*ours_and_paper] * len(block.columns)
    body = [_row([*stub, *table.texts(cells)], classes) for stub, cells in block.lines]
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{0}"><table>'
        '<caption class="hidden">{0}</caption>\n<thead>{1}</thead>\n<tbody>\n{2}\n</tbody>'
        "</table></div>"
    ).format(name, _row(table.heads(block), classes, head=True), Markup("\n").join(body))


def _row(texts: list[str], classes: list[str], head: bool = False) -> Markup:
    cell = Markup('<th scope="col"{}>{}</th>' if head else "<td{}>{}</td>")
    cells = []
    for text, names in zip(texts, classes, strict=True):
        names = f"{names} not-run".strip() if text == NOT_RUN else names
        cells.append(cell.format(Markup(' class="{}"').format(names) if names else "", text))
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))
