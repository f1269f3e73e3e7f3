"""A table as tidy cells, and its three files: CSV, Markdown and LaTeX (booktabs).

What makes a table is its cells, each with our number and the paper's. How a reader sees them is a
pivot, said in names of fields: which make a block, which a line, which a pair of columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mars.provenance.files import write_atomic

NOT_RUN = "not run"
NONE = "n/a"  # there is no such thing: no standard error, no published number, no benchmark
SUFFIXES = ("csv", "md", "tex")
# Quantity: what a reader sees, and how a number of it is written.
QUANTITIES = {
    "accuracy": ("accuracy", ".1f"),
    "delta_from_tau_1": ("change", "+.1f"),
    "tokens_per_forward": ("tokens/forward", ".2f"),
    "tokens_per_second": ("tokens/s", ",.1f"),
    "seconds": ("seconds", ".2f"),
    "speedup_over_ar": ("speed-up", ".2f"),
    "speedup_over_hf": ("over generate", ".2f"),
    "speedup": ("speed-up", ".2f"),
    "tokens_per_target_forward": ("tokens/target forward", ".2f"),
    "gsm8k_delta": ("change", "+.1f"),
    "tokens_per_forward_as_counted": ("tokens/forward as the authors count", ".2f"),
    "steps": ("steps", ",.0f"),
    "tokens": ("tokens", ",.0f"),
    "device_hours": ("device-hours", ".3f"),
    "peak_memory_gib": ("peak memory, GiB", ".2f"),
    "cost_over_ar_sft": ("cost over AR SFT", ".2f"),
    "peak_memory_over_ar_sft": ("peak memory over AR SFT", ".2f"),
    "accuracy_difference": ("difference", "+.1f"),
}
CSV_COLUMNS = (
    *("scale", "row", "model", "setting", "benchmark"),
    *("quantity", "value", "stderr", "published", "n"),
)
# Field: the heading of its column of the stub, and a value of it where it heads a column or block.
FIELDS = {
    "scale": ("Scale", "{}"),
    "row": ("Model", "{}"),
    "quantity": ("Quantity", "{}"),
    "benchmark": ("Benchmark", "{}"),
    "tau": ("tau", "tau = {}"),
    "block_size": ("B", "B = {}"),
    "batch_size": ("Batch", "batch {}"),
    "cache_block": ("Cache block", "cache block {}"),
    "sft_loss": ("SFT loss", "{} SFT loss"),
    "finding": ("Finding", "{}"),
    "part": ("Part", "{}"),
}


@dataclass(frozen=True)
class Measured:
    """A number of ours, in the unit of the table (percent, points, tokens per forward, ...).

    Attributes:
        stderr: standard error in the unit of ``value``; None where it is not known.
        n: questions (or repeats) behind it; None where nothing was counted.
        paired: of a difference: whether ``stderr`` comes from per-question differences.
    """

    value: float
    stderr: float | None = None
    n: int | None = None
    paired: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it is, our value, the paper's.

    Attributes:
        row: the paper's name of the row (or ours, of a row beyond the paper).
        model: name of our model in the experiment; None when it has no such model.
        setting: name of the decoding setting; None when the experiment has no such setting.
        ours: None is "not run"; text for what is no number (a hyper-parameter).
        published: None where the paper has no such number.
        extra: further fields, which become the last columns of the CSV.
    """

    scale: str
    row: str
    quantity: str
    benchmark: str = NONE
    model: str | None = None
    setting: str | None = None
    ours: Measured | str | None = None
    published: float | str | None = None
    extra: Mapping[str, str | int | float] = field(default_factory=dict)

    def field(self, name: str) -> Any:
        """A field by name, be it an attribute or one of ``extra``."""
        return self.extra[name] if name in self.extra else getattr(self, name)


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Attributes:
        name: of its files, e.g. ``table3``.
        lines, columns, blocks: names of fields. Cells alike in ``blocks`` stand together under a
            heading, those alike in ``lines`` in one line, those alike in ``columns`` below each
            other.
        headings: of the stub, where another word than the usual one is meant.
    """

    name: str
    caption: str
    cells: Sequence[Cell]
    notes: Sequence[str]
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[str, ...] = ()
    headings: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """``Table 3`` of ``table3``; any other name with a capital."""
        number = self.name.removeprefix("table")
        return f"Table {number}" if number != self.name else self.name.capitalize()

    @property
    def stub(self) -> list[str]:
        """Headings of the columns that name a line."""
        return [self.headings.get(name, FIELDS[name][0]) for name in self.lines]


def write(table: Table, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md`` and ``.tex`` into ``folder``, which is made if needed.

    Returns:
        The three files.
    """
    contents = (as_csv(table.cells), as_markdown(table), as_latex(table))
    files = table_files(folder, table.name)
    for file, content in zip(files, contents, strict=True):
        write_atomic(file, content)
    return files


def table_files(folder: Path, name: str) -> list[Path]:
    """The files of a table."""
    return [Path(folder) / f"{name}.{suffix}" for suffix in SUFFIXES]


# --- CSV ----------------------------------------------------------------------------------------


def as_csv(cells: Iterable[Cell]) -> str:
    """One cell per line, in full precision; no field is empty."""
    cells = list(cells)
    extra = list(dict.fromkeys(name for cell in cells for name in cell.extra))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*CSV_COLUMNS, *extra))
    for cell in cells:
        names = (cell.scale, cell.row, cell.model or NOT_RUN, cell.setting or NOT_RUN)
        published = NONE if cell.published is None else _rounded(cell.published, 4)
        writer.writerow(
            (
                *(*names, cell.benchmark, cell.quantity),
                *(*_ours(cell.ours), published, _counted(cell.ours)),
                *(cell.extra.get(name, NONE) for name in extra),
            )
        )
    return stream.getvalue()


def full_row_name(line: Mapping[str, str]) -> str:
    """The row of a tidy line, with what else tells it from its neighbours in a table of speed."""
    more = [
        f"{name.replace('_', ' ')} {line[name]}"
        for name in ("cache_block", "batch_size")
        if line.get(name, NONE) not in (NONE, "")
    ]
    return f"{line['row']} ({', '.join(more)})" if more else line["row"]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The cells of a table written by :func:`write`: its CSV's lines by column, as text."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def _ours(ours: Measured | str | None) -> tuple[float | str, float | str]:
    """Value and standard error."""
    if isinstance(ours, Measured):
        return round(ours.value, 6), NONE if ours.stderr is None else round(ours.stderr, 6)
    return (NOT_RUN, NOT_RUN) if ours is None else (ours, NONE)


def _counted(ours: Measured | str | None) -> int | str:
    if ours is None:
        return NOT_RUN
    return ours.n if isinstance(ours, Measured) and ours.n is not None else NONE


def _rounded(value: float | str, digits: int) -> float | str:
    return value if isinstance(value, str) else round(value, digits)


# --- the pivot ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Cells under one heading; of a line, ``None`` where a column has no cell."""

    title: str
    columns: list[str]
    lines: list[tuple[list[str], list[Cell | None]]]


def _blocks(table: Table) -> list[_Block]:
    grouped: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in table.cells:
        grouped.setdefault(_key(cell, table.blocks), []).append(cell)
    return [_block(table, key, cells) for key, cells in grouped.items()]


def _block(table: Table, key: tuple[Any, ...], cells: list[Cell]) -> _Block:
    columns = list(dict.fromkeys(_key(cell, table.columns) for cell in cells))
    lines: dict[tuple[Any, ...], dict[tuple[Any, ...], Cell]] = {}
    for cell in cells:
        lines.setdefault(_key(cell, table.lines), {})[_key(cell, table.columns)] = cell
    return _Block(
        title=_spoken(table.blocks, key),
        columns=[_spoken(table.columns, column) for column in columns],
        lines=[
            (
                [_word(*pair) for pair in zip(table.lines, line, strict=True)],
                [found.get(column) for column in columns],
            )
            for line, found in lines.items()
        ],
    )


def _key(cell: Cell, fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(cell.field(name) for name in fields)


def _spoken(fields: tuple[str, ...], values: tuple[Any, ...]) -> str:
    """``0.5B, with SFT loss, GSM8K``: the values as a heading."""
    pairs = zip(fields, values, strict=True)
    return ", ".join(FIELDS[name][1].format(_word(name, value)) for name, value in pairs)


def _word(name: str, value: Any) -> str:
    return quantity_title(value) if name == "quantity" else str(value)


def quantity_title(quantity: str) -> str:
    """A quantity as readers see it."""
    return QUANTITIES[quantity][0] if quantity in QUANTITIES else quantity.replace("_", " ")


def written(ours: Measured | str | None, quantity: str) -> str:
    """A number of ours as tables show it, e.g. ``62.5 ± 4.3``."""
    if ours is None:
        return NOT_RUN
    if isinstance(ours, str):
        return ours
    form = _form(quantity)
    if ours.stderr is None and ours.n is None:  # measured once, by a clock or a counter
        return format(ours.value, form)
    error = NONE if ours.stderr is None else format(ours.stderr, form.lstrip("+"))
    return f"{format(ours.value, form)} ± {error}"


def _form(quantity: str) -> str:
    return QUANTITIES[quantity][1] if quantity in QUANTITIES else ".6g"


def _pair(cell: Cell | None, has_paper: bool) -> list[str]:
    """Ours and, in a table with published numbers, the paper's."""
    if cell is None:
        return [NONE] * (1 + has_paper)
    ours = written(cell.ours, cell.quantity)
    if not has_paper:
        return [ours]
    if cell.published is None or isinstance(cell.published, str):
        return [ours, cell.published or NONE]
    return [ours, format(cell.published, _form(cell.quantity))]


def _has_paper(table: Table) -> bool:
    return any(cell.published is not None for cell in table.cells)


# --- Markdown -----------------------------------------------------------------------------------


def as_markdown(table: Table) -> str:
    """Title, caption, a table per block, notes."""
    has_paper = _has_paper(table)
    parts = [f"# {table.title}", table.caption]
    for block in _blocks(table):
        if block.title:
            parts.append(f"## {block.title}")
        head = list(table.stub)
        head += [name for title in block.columns for name in (title, "paper")[: 1 + has_paper]]
        align = ["---"] * len(table.lines) + ["---:"] * (len(head) - len(table.lines))
        body = [
            [*stub, *(text for cell in cells for text in _pair(cell, has_paper))]
            for stub, cells in block.lines
        ]
        parts.append(pipe_table([map(_bare, row) for row in (head, align, *body)]))
    parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def pipe_table(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table of cells that hold no bare ``|``: its head, the alignment, its body."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bare(text: str) -> str:
    return text.replace("|", "\\|")


# --- LaTeX --------------------------------------------------------------------------------------


def as_latex(table: Table) -> str:
    """A `table` environment with one `tabular`; a change of scale or block is a rule."""
    has_paper = _has_paper(table)
    blocks = _blocks(table)
    width = max(len(block.columns) for block in blocks)
    span = 1 + has_paper
    body: list[str] = []
    for block in blocks:
        body += _latex_block(table, block, width, span, first=block is blocks[0])
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


def _latex_block(table: Table, block: _Block, width: int, span: int, first: bool) -> list[str]:
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
        texts = [*names, *(text for cell in cells for text in _pair(cell, span == 2))]
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
