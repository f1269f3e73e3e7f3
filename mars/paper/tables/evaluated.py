"""The paper's tables of evaluations from our records, its numbers beside ours.

A table is its rows, those of the paper and a few beyond it, and how they are laid out. A row or a
cell that nothing was run for says so; a row beyond the paper is there if the experiment has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mars.config.experiment import Experiment
from mars.paper import published
from mars.paper.evaluations import Evaluations, ModelAndSetting, models_for, of_rows
from mars.paper.published import STAGE_EPOCHS, Row
from mars.paper.specs import TableSpec
from mars.paper.tables.notes import notes
from mars.paper.tables.table import Measured, Table, TableCell

BEYOND = " (beyond the paper)"


@dataclass(frozen=True)
class EvaluatedTable:
    """What a table shows, and how; ``lines``, ``columns``, ``blocks`` as of ``Table``.

    Attributes:
        beyond: the variants that are shown too, each with the rows that it varies.
    """

    name: str
    caption: str
    rows: Callable[[], list[Row]]
    lines: tuple[str, ...] = ("scale", "row")
    columns: tuple[str, ...] = ("benchmark",)
    blocks: tuple[str, ...] = ()
    beyond: tuple[tuple[Callable[[Row], bool], Callable[[Row], Row]], ...] = ()

    def all_rows(self) -> list[Row]:
        """The paper's rows, those of each scale followed by those beyond the paper."""
        rows = self.rows()
        varied = [vary(row) for row in rows for applies, vary in self.beyond if applies(row)]
        rows = [*rows, *varied]
        return [row for scale in published.SCALES for row in rows if row.scale == scale]

    def resolve(self, experiment: Experiment) -> TableSpec:
        """What the rows need of an experiment."""
        return of_rows(self.all_rows(), experiment)

    def table(self, spec: TableSpec, evaluations: Evaluations) -> Table:
        """The table of some evaluations; what they lack is "not run"."""
        cells = table_cells(self.all_rows(), evaluations)
        return self.laid_out(cells, notes(self.name, spec, cells, evaluations))

    def laid_out(self, cells: list[TableCell], notes: list[str]) -> Table:
        return Table(self.name, self.caption, cells, notes, self.lines, self.columns, self.blocks)


def variant(row: Row, difference: str, **changes: Any) -> Row:
    """A row beyond the paper: like one of its rows but for ``changes``."""
    decoding = {**row.decoding, **changes.pop("decoding", {})}
    scores: dict[str, dict[str, float]] = {quantity: {} for quantity in row.scores}
    label = f"{row.label}, {difference}{BEYOND}"
    return replace(row, label=label, scores=scores, decoding=decoding, beyond=True, **changes)


# The variants. The labels (A1, ..., C5) are those of docs/differences.md.
def with_penalty(row: Row) -> Row:
    """A1: autoregressive decoding with the repetition penalty of the base model's configuration."""
    decoding = {"method": "transformers", "repetition_penalty": lambda value: value > 1}
    return variant(row, "inherited repetition penalty", decoding=decoding)


def with_authors_window(row: Row) -> Row:
    """A5: the block cache whose window is the rest of the cache block."""
    decoding = {"method": "block_cache", "cache_block": bool, "authors_window": True}
    return variant(row, "block cache with the authors' window", decoding=decoding)


def with_inverse_t(row: Row) -> Row:
    """B2: training that weights each sequence by 1/t."""
    return variant(row, "1/t weighting", inverse_t=True)


def without_right_shift(row: Row) -> Row:
    """C1: block diffusion in which a masked position predicts its own token."""
    return variant(row, "logits not shifted", right_shift=False)


def with_all_guesses(row: Row) -> Row:
    """C5: Jacobi decoding that guesses every token that may remain."""
    return variant(row, "all tokens guessed", decoding={"block_size": published.guesses_all})


def lossless(row: Row) -> Row:
    """Multi-token decoding whose output is that of one-token mode, at any tau."""
    return variant(row, "lossless", decoding={"lossless": True, "threshold": _is_tau})


def with_extra_mask(row: Row) -> Row:
    """Multi-token decoding that reads the logits of one mask more."""
    return variant(row, "extra mask", decoding={"extra_mask": True})


MULTI_TOKEN = (lossless, with_extra_mask, with_authors_window)


def _is_tau(threshold: float | None) -> bool:
    return threshold is not None


def any_row(row: Row) -> bool:
    return True


def without_sft_loss(row: Row) -> bool:
    """Whether this is MARS trained by the mask loss alone."""
    return row.sft_loss is False


def is_jacobi(row: Row) -> bool:
    return row.decoding.get("method") == "jacobi"


def is_block_diffusion(row: Row) -> bool:
    return row.method == "block_diffusion"


def is_ar(row: Row) -> bool:
    """Whether this is AR SFT of one stage under plain greedy decoding."""
    return row.method == "ar_sft" and row.epochs == STAGE_EPOCHS and not row.decoding


def table_cells(rows: Sequence[Row], evaluations: Evaluations) -> list[TableCell]:
    """The cells of some rows, in their order."""
    cells = []
    for row in rows:
        models: list[str | None] = [*models_for(row, evaluations.spec)]
        for model in models or [None]:
            run = ModelAndSetting(model, evaluations.setting_of(model, row.decoding))
            label = _label(row, run.setting, evaluations)
            named = replace(row, label=label if len(models) < 2 else f"{label} [{model}]")
            found = [
                cell
                for quantity, scores in row.scores.items()
                for cell in row_cells(
                    named,
                    quantity,
                    run,
                    evaluations.measure(quantity, run, row.benchmarks),
                    evaluations.comparable(scores),
                )
            ]
            if not row.beyond or any(cell.ours is not None for cell in found):
                cells += found
    return cells


def _label(row: Row, setting: str | None, evaluations: Evaluations) -> str:
    """The row's name; with tau, where the row admits any."""
    if setting is None or not callable(row.decoding.get("threshold")):
        return row.label
    tau = evaluations.spec.settings[setting].threshold
    return f"{row.label.removesuffix(BEYOND)}, tau = {tau:g}{BEYOND}"


def row_cells(
    row: Row,
    quantity: str,
    run: ModelAndSetting,
    ours: Mapping[str, Measured | None],
    paper: Mapping[str, float],
    **extra: str,
) -> list[TableCell]:
    """The cells of one quantity of a row, ours and the paper's by title."""
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
            extra={**row.extra, **extra},
        )
        for title in row.benchmarks
    ]
