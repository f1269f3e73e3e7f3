"""The paper's tables of evaluations (2, 3, 4, 8, 9) from our records, its numbers beside ours.

A table is its rows, those of the paper and a few beyond it, and how they are laid out. A row or a
cell that nothing was run for says so; a row beyond the paper is there if the experiment has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mars.paper import published
from mars.paper.evaluations import (
    IDENTITY,
    ORIGIN,
    Evaluations,
    Records,
    Samples,
    models_for,
    settings_for,
)
from mars.paper.published import STAGE_EPOCHS, Row
from mars.paper.tables.notes import notes
from mars.paper.tables.writers import Cell, Table, write

BEYOND = " (beyond the paper)"


@dataclass(frozen=True)
class Declaration:
    """What a table shows, and how; ``lines``, ``columns``, ``blocks`` as of ``Table``."""

    caption: str
    rows: Callable[[], list[Row]]
    lines: tuple[str, ...] = ("scale", "row")
    columns: tuple[str, ...] = ("benchmark",)
    blocks: tuple[str, ...] = ()
    beyond: Callable[[list[Row]], list[Row]] = field(default=lambda rows: [])

    def all_rows(self) -> list[Row]:
        """The paper's rows, each followed by those beyond the paper that vary it."""
        rows = self.rows()
        extensions = self.beyond(rows)
        return [one for scale in published.SCALES for one in _of_scale(scale, rows, extensions)]


def _of_scale(scale: str, rows: list[Row], extensions: list[Row]) -> list[Row]:
    return [row for row in (*rows, *extensions) if row.scale == scale]


def variant(row: Row, what: str, **changes: Any) -> Row:
    """A row beyond the paper: like one of its rows but for ``changes``."""
    decoding = {**row.decoding, **changes.pop("decoding", {})}
    scores: dict[str, dict[str, float]] = {quantity: {} for quantity in row.scores}
    label = f"{row.label}, {what}{BEYOND}"
    return replace(row, label=label, scores=scores, decoding=decoding, beyond=True, **changes)


# The variants. The labels A1, A5 and B2 are those of docs/differences.md.
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


def lossless(row: Row) -> Row:
    """Multi-token decoding whose output is that of one-token mode, at any tau."""
    return variant(row, "lossless", decoding={"lossless": True, "threshold": _is_tau})


def with_extra_mask(row: Row) -> Row:
    """Multi-token decoding that reads the logits of one mask more."""
    return variant(row, "extra mask", decoding={"extra_mask": True})


def _is_tau(threshold: float | None) -> bool:
    return threshold is not None


def is_ar(row: Row) -> bool:
    """Whether this is AR SFT of one stage under plain greedy decoding."""
    return row.method == "ar_sft" and row.epochs == STAGE_EPOCHS and not row.decoding


DECLARATIONS = {
    2: Declaration(
        "One-token mode: accuracy (%), one token per forward.",
        published.table2,
        beyond=lambda rows: [with_penalty(row) for row in rows if is_ar(row)],
    ),
    3: Declaration(
        "The SFT loss and the block size, one-token mode: accuracy (%).",
        published.table3,
        beyond=lambda rows: [with_inverse_t(row) for row in rows if row.sft_loss is False],
    ),
    4: Declaration(
        "Multi-token mode: accuracy (%), its change from one-token mode (points), "
        "tokens per forward.",
        published.table4,
        lines=("scale", "row", "quantity"),
        beyond=lambda rows: [
            vary(row) for row in rows for vary in (lossless, with_extra_mask, with_authors_window)
        ],
    ),
    8: Declaration(
        "Threshold sweep: accuracy (%) and tokens per forward over tau and the block size B.",
        published.table8,
        lines=("tau",),
        columns=("block_size", "quantity"),
        blocks=("scale", "sft_loss", "benchmark"),
    ),
    9: Declaration(
        "Jacobi decoding of the AR model beside MARS: accuracy (%), tokens per forward.",
        published.table9,
        lines=("row", "quantity"),
        beyond=lambda rows: [with_penalty(row) for row in rows if is_ar(row)],
    ),
}


def write_table(
    number: int,
    *,
    experiment_spec: Mapping[str, Any],
    records: Records,
    samples: Samples | None = None,
    output: Path,
) -> list[Path]:
    """Write ``table<number>.csv``, ``.md`` and ``.tex`` into the folder ``output``.

    Args:
        number: a key of :data:`DECLARATIONS`, as in the paper.
        experiment_spec: what :func:`selection` leaves of the configuration.
        records, samples: as of :class:`mars.paper.evaluations.Evaluations`; what is missing in
            ``records`` is "not run".
        output: folder; made if needed.

    Returns:
        The three files.
    """
    shown, name = DECLARATIONS[number], f"table{number}"
    cells = table_cells(shown.all_rows(), Evaluations(experiment_spec, records, samples))
    table = Table(
        name,
        shown.caption,
        cells,
        notes(name, experiment_spec, cells),
        lines=shown.lines,
        columns=shown.columns,
        blocks=shown.blocks,
    )
    return write(table, output)


def table_cells(rows: Sequence[Row], evaluations: Evaluations) -> list[Cell]:
    """The cells of some rows, in their order."""
    cells = []
    for row in rows:
        models: list[str | None] = [*models_for(row, evaluations.spec)]
        for model in models or [None]:
            setting = evaluations.setting_of(model, row.decoding)
            label = _label(row, setting, evaluations)
            label = label if len(models) < 2 else f"{label} [{model}]"
            found = _row_cells(replace(row, label=label), model, setting, evaluations)
            if not row.beyond or any(cell.ours is not None for cell in found):
                cells += found
    return cells


def _label(row: Row, setting: str | None, evaluations: Evaluations) -> str:
    """The row's name; with tau, where the row admits any."""
    if setting is None or not callable(row.decoding.get("threshold")):
        return row.label
    tau = evaluations.spec["settings"][setting]["threshold"]
    return f"{row.label.removesuffix(BEYOND)}, tau = {tau:g}{BEYOND}"


def _row_cells(
    row: Row, model: str | None, setting: str | None, evaluations: Evaluations
) -> list[Cell]:
    cells = []
    for quantity, scores in row.scores.items():
        ours = evaluations.measure(quantity, model, setting, row.benchmarks)
        paper = evaluations.comparable(scores)
        cells += [
            Cell(
                scale=row.scale,
                row=row.label,
                quantity=quantity,
                benchmark=title,
                model=model,
                setting=setting,
                ours=ours[title],
                published=paper.get(title),
                extra=row.extra,
            )
            for title in row.benchmarks
        ]
    return cells


def selection(rows: Sequence[Row], spec: Mapping[str, Any]) -> dict[str, Any]:
    """What some rows need of a configuration; what is left out can change without effect.

    Args:
        spec: plain values: ``data``, ``scales``, ``models``, ``benchmarks`` and ``settings``.
    """
    models = {name for row in rows for name in models_for(row, spec)}
    found = {name for row in rows for name in settings_for(row.decoding, spec)}
    found |= set(settings_for({}, spec))
    titles = {title for row in rows for title in row.benchmarks}
    scales = {spec["models"][name]["scale"] for name in models}
    return {
        "data": spec["data"],
        "scales": _only(spec["scales"], scales),
        "models": {
            name: {key: model[key] for key in (*IDENTITY, *ORIGIN) if key in model}
            for name, model in spec["models"].items()
            if name in models
        },
        "benchmarks": {
            key: benchmark
            for key, benchmark in spec["benchmarks"].items()
            if benchmark["title"] in titles
        },
        "settings": _only(spec["settings"], found),
    }


def _only(section: Mapping[str, Any], wanted: set[Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name in wanted}
