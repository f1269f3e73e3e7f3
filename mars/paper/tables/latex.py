"""A table as LaTeX (booktabs)."""

from __future__ import annotations

import re

from mars.paper.tables.table import Block, Table


def as_latex(table: Table) -> str:
    """A `table` environment with one `tabular`; a change of scale or block is a rule."""
    blocks = table.pivoted()
    width = max(len(block.columns) for block in blocks)
    span = 1 + table.has_paper
    body: list[str] = []
    for block in blocks:
        body += _block(table, block, width, span, first=block is blocks[0])
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs,graphicx}.",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex(table.caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(table.lines)}{'r' * span * width}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\medskip\footnotesize\raggedright",
            latex(" ".join(table.notes)),
            r"\end{table}",
            "",
        ]
    )


def _block(table: Table, block: Block, width: int, span: int, first: bool) -> list[str]:
    stub = len(table.lines)
    lines = [] if first else [r"\midrule"]
    if block.title:
        total = stub + span * width
        lines += [rf"\multicolumn{{{total}}}{{l}}{{\textbf{{{latex(block.title)}}}}} \\"]
    heads = list(map(latex, table.stub))
    rest = ["" for _ in range(span * (width - len(block.columns)))]
    if span == 2:
        titles = [rf"\multicolumn{{2}}{{c}}{{{latex(title)}}}" for title in block.columns]
        lines += [" & ".join([*([""] * stub), *titles, *rest]).strip() + r" \\"]
        ends = [stub + 1 + 2 * index for index in range(len(block.columns))]
        lines += ["".join(rf"\cmidrule(lr){{{start}-{start + 1}}}" for start in ends)]
        heads += ["ours", "paper"] * len(block.columns)
    else:
        heads += [latex(title) for title in block.columns]
    lines += [" & ".join([*heads, *rest]) + r" \\", r"\midrule"]
    scale = None
    for names, cells in block.lines:
        if table.lines[0] == "scale":
            lines += [r"\midrule"] if scale not in (None, names[0]) else []
            scale = names[0]
        texts = [*names, *table.texts(cells)]
        lines.append(" & ".join([*map(latex, texts), *rest]) + r" \\")
    return lines


def latex(text: str) -> str:
    """Plain text as LaTeX: special characters escaped, signs, arrows and quotes as such."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: rf"\{character}" for character in "&%$#_{}"}
    # A cell that opens with [ would be read as the optional argument of the \\ before it.
    special |= {"[": "{[}", "]": "{]}", "±": r"$\pm$", "→": r"$\rightarrow$"}
    special |= {character: f"${character}$" for character in "<>|"}
    escaped = "".join(special.get(character, character) for character in text.replace("->", "→"))
    escaped = re.sub('"([^"]*)"', r"``\1''", escaped)
    return re.sub(r"^[+-](?=\d)", lambda sign: f"${sign[0]}$", escaped)
