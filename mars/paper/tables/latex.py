"""A table as LaTeX (booktabs)."""

from __future__ import annotations

import re

from mars.paper.tables.table import Block, Table


def as_latex(table: Table) -> str:
    """A `table` environment with one `tabular`; a change of scale or block is a rule."""
    blocks = table.pivoted()
    width = max(len(block.columns) for block in blocks)
    body = [_block(table, block, width) for block in blocks]
    numbers = "r" * (1 + table.has_paper) * width
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs,graphicx}.",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex(table.caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(table.lines)}{numbers}}}",
            r"\toprule",
            "\n\\midrule\n".join("\n".join(lines) for lines in body),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\medskip\footnotesize\raggedright",
            latex(" ".join(table.notes)),
            r"\end{table}",
            "",
        ]
    )


def _block(table: Table, block: Block, width: int) -> list[str]:
    stub, span = len(table.lines), 1 + table.has_paper
    rest = [""] * (span * (width - len(block.columns)))
    lines = []
    if block.title:
        title = rf"\textbf{{{latex(block.title)}}}"
        lines += [rf"\multicolumn{{{stub + span * width}}}{{l}}{{{title}}} \\"]
    heads = list(map(latex, [*table.stub, *block.columns]))
    if table.has_paper:
        titles = [rf"\multicolumn{{2}}{{c}}{{{title}}}" for title in heads[stub:]]
        lines += [" & ".join([*([""] * stub), *titles, *rest]).strip() + r" \\"]
        starts = range(stub + 1, stub + 1 + 2 * len(titles), 2)
        lines += ["".join(rf"\cmidrule(lr){{{start}-{start + 1}}}" for start in starts)]
        heads[stub:] = ["ours", "paper"] * len(titles)
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
