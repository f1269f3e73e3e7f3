"""The tables' Markdown as accessible HTML: captions, scopes, and a box to scroll in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

NUMBER_OF_PAPER = "paper"  # heading of a column of published numbers


def body_of(text: str) -> str:
    """Markdown without its title line, which the page gives in its own words."""
    first, _, rest = text.partition("\n")
    return rest if first.startswith("# ") else text


def tables_as_html(text: str, caption: str) -> Markup:
    """Render Markdown; each table gets ``caption``, or the heading above it.

    Columns headed "paper" and cells that were not run get classes, so that ours stand out.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    _mark_cells(tokens)
    _lower_headings(tokens)
    _box_tables(tokens, caption)
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _mark_cells(tokens: Sequence[Token]) -> None:
    """Classes and scopes of cells, by the heading of their column."""
    headings: list[str] = []
    column = 0
    for token, following in pairwise(tokens):
        if token.type == "thead_open":
            headings = []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            headings.append(following.content)
            token.attrSet("scope", "col")
        if token.type in ("th_open", "td_open"):
            if headings[column] == NUMBER_OF_PAPER:
                token.attrJoin("class", "paper")
            if following.content == "not run":
                token.attrJoin("class", "not-run")
            if "right" in str(token.attrGet("style")):
                token.attrJoin("class", "number")
            token.attrs.pop("style", None)
            column += 1


def _lower_headings(tokens: Sequence[Token]) -> None:
    """On the page these stand below a section's heading."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"


def _box_tables(tokens: list[Token], caption: str) -> None:
    heading = ""
    for index, token in reversed(list(enumerate(tokens))):
        if token.type in ("table_open", "table_close"):
            html = Token("html_block", "", 0)
            heading = _heading_above(tokens, index)
            named = f"{caption}, {heading}" if heading else caption
            opening = (
                '<div class="scroll" role="region" tabindex="0" aria-label="{0}">'
                '<table><caption class="hidden">{0}</caption>'
            )
            html.content = (
                opening.format(escape(named)) if token.nesting == 1 else "</table></div>\n"
            )
            tokens[index] = html


def _heading_above(tokens: Sequence[Token], index: int) -> str:
    for position in range(index - 1, -1, -1):
        if tokens[position].type == "heading_open":
            return tokens[position + 1].content
    return ""
