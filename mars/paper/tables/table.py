"""A table as typed cells, and the pivot in which readers see them.

What makes a table is its cells, each with our number and the paper's. How a reader sees them is a
pivot, said in names of fields: which make a block, which a line, which a pair of columns. CSV,
Markdown, LaTeX, the page and the terminal are renderings of this one record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mars.provenance.files import read_jsonl, write_jsonl

NOT_RUN = "not run"
NONE = "n/a"  # there is no such thing: no standard error, no published number, no benchmark
# Quantity: what a reader sees, and how a number of it is written.
QUANTITIES = {
    "accuracy": ("accuracy", ".1f"),
    "delta_from_tau_1": ("change", "+.1f"),
    "tokens_per_forward": ("tokens/forward", ".2f"),
    "tokens_per_second": ("tokens/s", ",.1f"),
    "seconds": ("seconds", ".2f"),
    "speedup_over_ar": ("speed-up over AR", ".2f"),
    "speedup_over_hf": ("speed-up over generate", ".2f"),
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
# Field: the heading of its column, where that is not the name itself.
HEADINGS = {"row": "Model", "tau": "tau", "block_size": "B", "batch_size": "Batch"}
# Field: a value of it where that heads a column or block, if it does not stand for itself.
SPOKEN = {
    "tau": "tau = {}",
    "block_size": "B = {}",
    "batch_size": "batch {}",
    "sft_loss": "{} SFT loss",
}


@dataclass(frozen=True)
class Measured:
    """A number of ours, in the unit of the table (percent, points, tokens per forward, ...).

    Attributes:
        stderr: standard error in the unit of ``value``; None where it is not known.
        n: questions (or repeats) behind it; None where nothing was counted.
        paired: of a difference: whether ``stderr`` comes from per-question differences.
        seeds: of a model trained from several seeds the number of each, of which ``value`` is the
            mean; ``stderr`` is then over questions and seeds.
    """

    value: float
    stderr: float | None = None
    n: int | None = None
    paired: bool = False
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class TableCell:
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

    @property
    def ours_as_read(self) -> str:
        """Our number as readers see it: ``62.5 ± 4.3``, or ``62.5 ± 1.3 [61.0, 64.1]`` of seeds."""
        if self.ours is None or isinstance(self.ours, str):
            return self.ours or NOT_RUN
        form, seeds = _form(self.quantity), self.ours.seeds
        text = format(self.ours.value, form)
        if self.ours.stderr is not None:
            text += f" ± {format(self.ours.stderr, form.lstrip('+'))}"
        elif self.ours.n is not None:  # else measured once, by clock or counter
            text += f" ± {NONE}"
        spread = f" [{format(min(seeds), form)}, {format(max(seeds), form)}]" if seeds else ""
        return text + spread

    @property
    def published_as_read(self) -> str:
        """The paper's number as readers see it."""
        if self.published is None or isinstance(self.published, str):
            return self.published or NONE
        return format(self.published, _form(self.quantity))


Values = tuple[Any, ...]  # of some fields


@dataclass(frozen=True)
class Block:
    """Cells under one heading; of a line, ``None`` where a column has no cell."""

    title: str
    columns: list[str]
    lines: list[tuple[list[str], list[TableCell | None]]]


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered.

    Attributes:
        name: of its files, e.g. ``table3``.
        lines, columns, blocks: names of fields. Cells alike in ``blocks`` stand together under a
            heading, those alike in ``lines`` in one line, those alike in ``columns`` below each
            other.
        headings: of the stub, where another word than the usual one is meant.
    """

    name: str
    caption: str
    cells: Sequence[TableCell]
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
        words = HEADINGS | dict(self.headings)
        return [words.get(name, name.replace("_", " ").capitalize()) for name in self.lines]

    @property
    def has_paper(self) -> bool:
        """Whether the paper's numbers have columns of their own."""
        return any(cell.published is not None for cell in self.cells)

    def heads(self, block: Block) -> list[str]:
        """The stub and the columns of a block as readers see them."""
        pairs = ((title, "paper")[: 1 + self.has_paper] for title in block.columns)
        return [*self.stub, *(word for pair in pairs for word in pair)]

    def pivoted(self) -> list[Block]:
        """The blocks of the table, in the order of their first cells."""
        grouped: dict[Values, dict[Values, dict[Values, TableCell]]] = {}
        for cell in self.cells:
            lines = grouped.setdefault(_values(cell, self.blocks), {})
            line = lines.setdefault(_values(cell, self.lines), {})
            line[_values(cell, self.columns)] = cell
        return [self._block(key, lines) for key, lines in grouped.items()]

    def _block(self, key: Values, lines: dict[Values, dict[Values, TableCell]]) -> Block:
        columns = list(dict.fromkeys(column for line in lines.values() for column in line))
        return Block(
            title=_spoken(self.blocks, key),
            columns=[_spoken(self.columns, column) for column in columns],
            lines=[
                (list(map(_word, self.lines, line)), [found.get(column) for column in columns])
                for line, found in lines.items()
            ],
        )

    def texts(self, cells: Sequence[TableCell | None]) -> list[str]:
        """A line as readers see it: ours and, in a table with published numbers, the paper's."""
        pairs = [
            (cell.ours_as_read, cell.published_as_read) if cell else (NONE, NONE) for cell in cells
        ]
        return [text for pair in pairs for text in pair[: 1 + self.has_paper]]


def quantity_title(quantity: str) -> str:
    """A quantity as readers see it."""
    return QUANTITIES[quantity][0] if quantity in QUANTITIES else quantity.replace("_", " ")


def _form(quantity: str) -> str:
    return QUANTITIES[quantity][1] if quantity in QUANTITIES else ".6g"


def _values(cell: TableCell, fields: tuple[str, ...]) -> Values:
    return tuple(cell.field(name) for name in fields)


def _spoken(fields: tuple[str, ...], values: Values) -> str:
    """``0.5B, with SFT loss, GSM8K``: the values as a heading."""
    pairs = zip(fields, values, strict=True)
    return ", ".join(SPOKEN.get(name, "{}").format(_word(name, value)) for name, value in pairs)


def _word(name: str, value: Any) -> str:
    return quantity_title(value) if name == "quantity" else str(value)


# --- the record as a file -----------------------------------------------------------------------


def write_record(table: Table, path: Path) -> None:
    """Write a table as JSON lines: first all but its cells, then a cell in each."""
    plain = TypeAdapter(Table).dump_python(table, mode="json")
    cells = plain.pop("cells")
    write_jsonl(path, [plain, *cells])


def read_record(path: Path) -> Table:
    """A table that :func:`write_record` wrote."""
    plain, *cells = read_jsonl(path)
    return TypeAdapter(Table).validate_python({**plain, "cells": cells})
