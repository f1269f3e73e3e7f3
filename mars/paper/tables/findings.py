"""What the authors' released code does otherwise than the paper's text, as numbers.

Each difference that can be measured (A1, A2, A5, B2, C5 of docs/differences.md) is a pair of rows:
as we do it, and as the released code does, on the same questions. A published number stands beside
the second one where that is how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mars.paper import published
from mars.paper.evaluations import Evaluations, ModelAndSetting, models_for
from mars.paper.published import Row
from mars.paper.specs import TableSpec
from mars.paper.tables import evaluated
from mars.paper.tables.evaluated import BEYOND, EvaluatedTable, is_ar, row_cells
from mars.paper.tables.notes import endpoint_notes, missing_notes, paper_note, scale_notes
from mars.paper.tables.table import NOT_RUN, Table, TableCell


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
    return row.block_size == 4


DIFFERENCES = (
    CodeDifference(
        "A1: AR rows inherit a repetition penalty",
        published.table2,
        is_ar,
        evaluated.with_penalty,
    ),
    CodeDifference(
        "A2: tokens after the end of an answer are counted",
        published.table4,
        evaluated.any_row,
        there=None,
    ),
    CodeDifference(
        "A5: the window of the block cache is the rest of its block",
        published.table4,
        has_four_per_block,
        evaluated.with_authors_window,
        published=False,  # it is Table 5's sampler, of which the paper prints the speed alone
    ),
    CodeDifference(
        "B2: without SFT loss, sequences are weighted by 1/t",
        published.table3,
        evaluated.without_sft_loss,
        evaluated.with_inverse_t,
    ),
    CodeDifference(
        "C5: Jacobi guesses every token that may remain",
        published.table9,
        evaluated.is_jacobi,
        evaluated.with_all_guesses,
    ),
)


def here_and_there() -> list[Row]:
    """Every row that is compared."""
    here = [(one, row) for one in DIFFERENCES for row in one.rows()]
    return [row for _, row in here] + [one.there(row) for one, row in here if one.there]


class Findings(EvaluatedTable):
    """The table of all differences."""

    def table(self, spec: TableSpec, evaluations: Evaluations) -> Table:
        cells = [
            cell
            for one in DIFFERENCES
            for row in one.rows()
            for cell in _cells(one, row, evaluations)
        ]
        notes = [
            paper_note(self.name),
            "Difference: accuracy as in the released code minus accuracy as done here, in points; "
            "its standard error is computed from paired differences per question. "
            "docs/differences.md explains the findings.",
            *scale_notes(spec.scales),
            *endpoint_notes(cells, evaluations),
            *missing_notes(cells),
        ]
        return self.laid_out(cells, notes)


FINDINGS = Findings(
    "findings",
    "What published numbers may owe to the released code: results as done here and as done there.",
    here_and_there,
    lines=("scale", "row", "quantity"),
    blocks=("finding",),
)


def _cells(one: CodeDifference, row: Row, evaluations: Evaluations) -> list[TableCell]:
    """Both rows and the difference of their accuracies; or tokens per forward, counted twice."""

    def line(row: Row, quantity: str, printed: Mapping[str, float]) -> list[TableCell]:
        run, paper = _run(row, evaluations), evaluations.comparable(printed)
        ours = evaluations.measure(quantity, run, row.benchmarks)
        return row_cells(row, quantity, run, ours, paper, finding=one.title)

    if one.there is None:
        counted = "tokens_per_forward"
        as_counted = line(row, f"{counted}_as_counted", row.scores[counted])
        return [*line(row, counted, {}), *as_counted]
    there = one.there(row)
    there = replace(there, label=there.label.removesuffix(BEYOND))
    cells = []
    for quantity in [name for name in row.scores if name != "delta_from_tau_1"]:
        printed = row.scores[quantity] if one.published else {}
        cells += [*line(row, quantity, {}), *line(there, quantity, printed)]
    run_there, run_here = _run(there, evaluations), _run(row, evaluations)
    change = evaluations.difference_by_title(run_there, run_here)
    against = "/".join(name or NOT_RUN for name in run_here)
    extra = {"finding": one.title, "against": against}
    return [*cells, *row_cells(there, "accuracy_difference", run_there, change, {}, **extra)]


def _run(row: Row, evaluations: Evaluations) -> ModelAndSetting:
    model = next(iter(models_for(row, evaluations.spec)), None)
    return ModelAndSetting(model, evaluations.setting_of(model, row.decoding))
