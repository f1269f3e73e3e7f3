"""Where the questions behind a cell of a table are: an address on the page of questions.

`mars.publishing.questions` writes that page beside this one. An address names all that the number
is from: the trainings of a model under a setting, the benchmarks, and what is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from mars.paper.specs import Answered
from mars.paper.tables.table import Measured, TableCell

QUESTIONS = "questions.html"


def address(cell: TableCell, cells: Sequence[TableCell], answered: Answered) -> str | None:
    """The address of a cell's questions; None where no evaluation is behind it.

    Args:
        cells: of the whole table; an average is over those of its row.
    """
    benchmarks = _benchmarks(cell, cells, answered)
    if not isinstance(cell.ours, Measured) or not (cell.model and cell.setting and benchmarks):
        return None
    trainings = answered.trainings_of(cell.model)
    parts = {"model": trainings, "setting": [cell.setting], "benchmark": benchmarks}
    model, setting = _against(cell, answered)
    if model:
        others = answered.trainings_of(model)[: len(trainings)]
        parts |= {"against": others, "against_setting": [setting]}
    values = {name: ",".join(names) for name, names in parts.items()}
    return f"{QUESTIONS}#{urlencode(values, safe=',')}"


def _benchmarks(cell: TableCell, cells: Sequence[TableCell], answered: Answered) -> list[str]:
    """The benchmark of a cell; of an average, those that it is over."""
    if cell.benchmark in answered.benchmarks:
        return [answered.benchmarks[cell.benchmark]]
    row = _row(cell)
    others = (one for one in cells if one.ours is not None and _row(one) == row)
    titles = (one.benchmark for one in others)
    return [answered.benchmarks[title] for title in titles if title in answered.benchmarks]


def _row(cell: TableCell) -> tuple[str | None, ...]:
    return cell.scale, cell.row, cell.model, cell.setting, cell.quantity


def _against(cell: TableCell, answered: Answered) -> tuple[str | None, str]:
    """The model and the setting that a difference takes off."""
    if cell.quantity == "delta_from_tau_1":
        return cell.model, answered.one_token
    if cell.quantity == "accuracy_difference":
        model, _, setting = str(cell.extra["against"]).partition("/")
        return model, setting
    return None, ""
