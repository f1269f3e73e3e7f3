"""What the authors' released code does otherwise than the paper's text, as numbers.

Each difference that can be measured (A1, A2, A5, B2 of docs/differences.md) is a pair of rows: as
we do it, and as the released code does, on the same questions. A published number stands beside the
second one where that is how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mars.paper import published
from mars.paper.evaluations import Evaluations, ModelAndSetting, models_for
from mars.paper.published import Row
from mars.paper.specs import TableSpec
from mars.paper.tables.evaluated import (
    BEYOND,
    any_row,
    is_ar,
    with_authors_window,
    with_inverse_t,
    with_penalty,
    without_sft_loss,
)
from mars.paper.tables.notes import missing_notes, paper_note, scale_notes
from mars.paper.tables.table import NOT_RUN, Measured, Table, TableCell

CAPTION = "What a published number may owe to the released code: as done here, and as done there."


@dataclass(frozen=True)
class CodeDifference:
    """Rows whose numbers depend on what the released code does.

    Attributes:
        title: the difference in a few words, with its label in docs/differences.md.
        table, applies: the rows as done here: those of a table for which this is so.
        there: the same row as the released code has it; None where only the counting differs.
        published: whether the row's published numbers were made as ``there``.
    """

    title: str
    table: Callable[[], list[Row]]
    applies: Callable[[Row], bool]
    there: Callable[[Row], Row] | None
    published: bool = True

    def rows(self) -> list[Row]:
        """As done here."""
        return [row for row in self.table() if self.applies(row)]


def has_four_per_block(row: Row) -> bool:
    """Whether B is 4."""
    return row.block_size == 4


DIFFERENCES = (
    CodeDifference(
        "A1: AR rows inherit a repetition penalty", published.table2, is_ar, with_penalty
    ),
    CodeDifference(
        "A2: tokens after the end of an answer are counted", published.table4, any_row, None
    ),
    CodeDifference(
        "A5: the window of the block cache is the rest of its block",
        published.table4,
        has_four_per_block,
        with_authors_window,
        published=False,  # it is Table 5's sampler, of which the paper prints the speed alone
    ),
    CodeDifference(
        "B2: without SFT loss, sequences are weighted by 1/t",
        published.table3,
        without_sft_loss,
        with_inverse_t,
    ),
)


def all_rows() -> list[Row]:
    """Every row that is compared."""
    here = [(one, row) for one in DIFFERENCES for row in one.rows()]
    return [row for _, row in here] + [one.there(row) for one, row in here if one.there]


def findings(spec: TableSpec, evaluations: Evaluations) -> Table:
    """The table of all differences."""
    cells = [
        cell
        for one in DIFFERENCES
        for row in one.rows()
        for cell in (_compared if one.there else _counted)(one, row, evaluations)
    ]
    notes = [
        paper_note("findings"),
        "Difference: accuracy as in the released code minus accuracy as here, in points, its error "
        "from paired differences per question. The findings are explained in docs/differences.md.",
        *scale_notes(spec.scales),
        *missing_notes(cells),
    ]
    return Table(
        name="findings",
        caption=CAPTION,
        cells=cells,
        notes=notes,
        lines=("scale", "row", "quantity"),
        columns=("benchmark",),
        blocks=("finding",),
    )


def _compared(one: CodeDifference, row: Row, evaluations: Evaluations) -> list[TableCell]:
    """Both rows, and the difference of their accuracies."""
    assert one.there is not None
    there = one.there(row)
    there = replace(there, label=there.label.removesuffix(BEYOND))
    run_here, run_there = _run(row, evaluations), _run(there, evaluations)
    cells = []
    for quantity in [name for name in row.scores if name != "delta_from_tau_1"]:
        ours = evaluations.measure(quantity, run_here, row.benchmarks)
        cells += _line(one, row, quantity, run_here, ours, {})
        ours = evaluations.measure(quantity, run_there, row.benchmarks)
        paper = evaluations.comparable(row.scores[quantity]) if one.published else {}
        cells += _line(one, there, quantity, run_there, ours, paper)
    ours = evaluations.difference_by_title(run_there, run_here)
    line = _line(one, there, "accuracy_difference", run_there, ours, {})
    against = "/".join(name or NOT_RUN for name in run_here)
    return [*cells, *(replace(cell, extra={**cell.extra, "against": against}) for cell in line)]


def _counted(one: CodeDifference, row: Row, evaluations: Evaluations) -> list[TableCell]:
    """Tokens per forward as they are, and as the released code counts them."""
    run, cells = _run(row, evaluations), []
    printed = evaluations.comparable(row.scores["tokens_per_forward"])
    for quantity, paper in (
        ("tokens_per_forward", {}),
        ("tokens_per_forward_as_counted", printed),
    ):
        ours = evaluations.measure(quantity, run, row.benchmarks)
        cells += _line(one, row, quantity, run, ours, paper)
    return cells


def _run(row: Row, evaluations: Evaluations) -> ModelAndSetting:
    model = next(iter(models_for(row, evaluations.spec)), None)
    return ModelAndSetting(model, evaluations.setting_of(model, row.decoding))


def _line(
    one: CodeDifference,
    row: Row,
    quantity: str,
    run: ModelAndSetting,
    ours: Mapping[str, Measured | None],
    paper: Mapping[str, float],
) -> list[TableCell]:
    return [
        TableCell(
            scale=row.scale,
            row=row.label,
            quantity=quantity,
            benchmark=title,
            model=run.model,
            setting=run.setting,
            ours=ours[title],
            published=paper.get(title),
            extra={"finding": one.title},
        )
        for title in row.benchmarks
    ]
