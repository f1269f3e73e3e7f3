"""What the authors' released code does otherwise than the paper's text, as numbers.

Each finding that can be measured (A1, A2, A5, B2 of docs/differences.md) is a pair of rows: as we
do it, and as the released code does, on the same questions. A published number stands beside the
second one where that is how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mars.paper import published
from mars.paper.evaluations import Evaluations, Found, Records, Samples, models_for
from mars.paper.published import Row
from mars.paper.tables.evaluated import (
    BEYOND,
    is_ar,
    with_authors_window,
    with_inverse_t,
    with_penalty,
)
from mars.paper.tables.notes import missing_notes, paper_note, scale_notes
from mars.paper.tables.writers import NOT_RUN, Cell, Measured, Table, write

CAPTION = "What a published number may owe to the released code: as done here, and as done there."


@dataclass(frozen=True)
class Finding:
    """Rows whose numbers depend on what the released code does.

    Attributes:
        title: the finding in a few words, with its label in docs/differences.md.
        rows: as done here.
        there: the same row as the released code has it; None where only the counting differs.
        published: whether the row's published numbers were made as ``there``.
    """

    title: str
    rows: Callable[[], list[Row]]
    there: Callable[[Row], Row] | None
    published: bool = True


FINDINGS = (
    Finding(
        "A1: AR rows inherit a repetition penalty",
        lambda: [row for row in published.table2() if is_ar(row)],
        with_penalty,
    ),
    Finding(
        "A2: tokens after the end of an answer are counted",
        published.table4,
        None,
    ),
    Finding(
        "A5: the window of the block cache is the rest of its block",
        lambda: [row for row in published.table4() if row.block_size == 4],
        with_authors_window,
        published=False,  # it is Table 5's sampler, of which the paper prints the speed alone
    ),
    Finding(
        "B2: without SFT loss, sequences are weighted by 1/t",
        lambda: [row for row in published.table3() if row.sft_loss is False],
        with_inverse_t,
    ),
)


def all_rows() -> list[Row]:
    """Every row that a finding compares."""
    here = [(finding, row) for finding in FINDINGS for row in finding.rows()]
    return [row for _, row in here] + [f.there(row) for f, row in here if f.there]


def write_findings(
    spec: Mapping[str, Any], records: Records, samples: Samples, output: Path
) -> list[Path]:
    """Write ``findings.csv``, ``.md`` and ``.tex``; arguments as of ``tables.write_table``."""
    evaluations = Evaluations(spec, records, samples)
    cells = [
        cell
        for finding in FINDINGS
        for row in finding.rows()
        for cell in (
            _compared(finding, row, evaluations)
            if finding.there
            else _counted(finding, row, evaluations)
        )
    ]
    notes = [
        paper_note("findings"),
        "Difference: accuracy as in the released code minus accuracy as here, in points, its error "
        "from paired differences per question. The findings are explained in docs/differences.md.",
        *scale_notes(spec),
        *missing_notes(cells),
    ]
    table = Table(
        name="findings",
        caption=CAPTION,
        cells=cells,
        notes=notes,
        lines=("scale", "row", "quantity"),
        columns=("benchmark",),
        blocks=("finding",),
    )
    return write(table, output)


def _compared(finding: Finding, row: Row, evaluations: Evaluations) -> list[Cell]:
    """Both rows of a finding, and the difference of their accuracies."""
    assert finding.there is not None
    there = finding.there(row)
    there = replace(there, label=there.label.removesuffix(BEYOND))
    here_found, there_found = _found(row, evaluations), _found(there, evaluations)
    cells = []
    for quantity in [name for name in row.scores if name != "delta_from_tau_1"]:
        ours = evaluations.measure(quantity, *here_found, row.benchmarks)
        cells += _line(finding, row, quantity, here_found, ours, {})
        ours = evaluations.measure(quantity, *there_found, row.benchmarks)
        paper = evaluations.comparable(row.scores[quantity]) if finding.published else {}
        cells += _line(finding, there, quantity, there_found, ours, paper)
    ours = evaluations.difference_by_title(there_found, here_found)
    line = _line(finding, there, "accuracy_difference", there_found, ours, {})
    against = "/".join(name or NOT_RUN for name in here_found)
    return [*cells, *(replace(cell, extra={**cell.extra, "against": against}) for cell in line)]


def _counted(finding: Finding, row: Row, evaluations: Evaluations) -> list[Cell]:
    """Tokens per forward as they are, and as the released code counts them."""
    found, cells = _found(row, evaluations), []
    for quantity, paper in (
        ("tokens_per_forward", {}),
        (
            "tokens_per_forward_as_counted",
            evaluations.comparable(row.scores["tokens_per_forward"]),
        ),
    ):
        ours = evaluations.measure(quantity, *found, row.benchmarks)
        cells += _line(finding, row, quantity, found, ours, paper)
    return cells


def _found(row: Row, evaluations: Evaluations) -> Found:
    models = models_for(row, evaluations.spec)
    model = models[0] if models else None
    return model, evaluations.setting_of(model, row.decoding)


def _line(
    finding: Finding,
    row: Row,
    quantity: str,
    found: Found,
    ours: Mapping[str, Measured | None],
    paper: Mapping[str, float],
) -> list[Cell]:
    return [
        Cell(
            scale=row.scale,
            row=row.label,
            quantity=quantity,
            benchmark=title,
            model=found[0],
            setting=found[1],
            ours=ours[title],
            published=paper.get(title),
            extra={"finding": finding.title},
        )
        for title in row.benchmarks
    ]
