"""What a reader must know to read a table of ours rightly, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mars.paper import published
from mars.paper.evaluations import benchmark_keys
from mars.paper.published import AVERAGE, BENCHMARKS
from mars.paper.tables.origin import origin_notes, trains
from mars.paper.tables.writers import NONE, NOT_RUN, Cell, Measured


def notes(name: str, spec: Mapping[str, Any], cells: Sequence[Cell]) -> list[str]:
    """The notes below table ``name``, made of ``cells`` from the configuration ``spec``."""
    return [
        paper_note(name),
        *scale_notes(spec),
        _question_note(spec, cells),
        *origin_notes(spec),
        *([data_note(spec["data"])] if trains(spec) else []),
        *_average_notes(spec, cells),
        *missing_notes(cells),
        *_change_notes(cells),
    ]


def paper_note(name: str) -> str:
    """What stands in the columns of the paper."""
    number = name.removeprefix("table")
    where = f"the number of Table {number}" if number != name else "the number"
    return (
        f"Ours: ± one standard error; paper: {where} of arXiv 2604.07023, "
        "which gives no standard errors. Rows carry the paper's names."
    )


def scale_notes(spec: Mapping[str, Any]) -> list[str]:
    """For each scale, which base model stands for it; the plain statement if it is not the same."""
    descriptions = [
        f"{scale['stands_for']} is stood for by {name} ({_what(scale['base'])})"
        for name, scale in spec["scales"].items()
        if not is_of_the_paper(scale)
    ]
    if not descriptions:
        return []
    return [
        f"Scale differs: {'; '.join(descriptions)}. The paper's absolute numbers are not "
        "reproduced here; compare the direction of the differences between rows."
    ]


def is_of_the_paper(scale: Mapping[str, Any]) -> bool:
    """Whether a scale's base model is the paper's own."""
    repository = scale["base"].get("repository", "")
    return repository.endswith(f"/{published.base_model(scale['stands_for'])}")


def _what(base: Mapping[str, Any]) -> str:
    return base.get("repository") or base.get("package") or "a model trained from scratch here"


def _question_note(spec: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """Questions per benchmark, and whether a limit cut them."""
    parts = []
    shown = {cell.benchmark for cell in cells}
    for title, key in benchmark_keys(spec).items():
        if title not in shown:
            continue
        counts = sorted(
            {
                cell.ours.n
                for cell in cells
                if cell.benchmark == title and isinstance(cell.ours, Measured) and cell.ours.n
            }
        )
        text = " or ".join(str(count) for count in counts) or NOT_RUN
        benchmark = spec["benchmarks"][key]
        if (limit := benchmark["limit"]) is not None:
            text += f" (limited to the first {limit} of each task)"
        if benchmark["subtasks"] is not None:
            text += f" ({len(benchmark['subtasks'])} sub-tasks)"
        parts.append(f"{title} {text}")
    return f"Questions: {', '.join(parts) or NONE}."


def data_note(data: Mapping[str, Any]) -> str:
    """What the models were fine-tuned on."""
    if data["source"] == "generated":
        return f"Fine-tuned on {data['instructions']} instruction examples generated here."
    amount = f"{data['limit']} examples" if data["limit"] else "all examples"
    return f"Fine-tuned on {amount} of {data['dataset']}."


def _average_notes(spec: Mapping[str, Any], cells: Sequence[Cell]) -> list[str]:
    titles = list(benchmark_keys(spec))
    if len(titles) == len(BENCHMARKS) or AVERAGE not in {cell.benchmark for cell in cells}:
        return []
    return [
        f"This experiment has {len(titles)} of the six benchmarks; {AVERAGE} is over "
        f"{', '.join(titles)}, for ours and the paper's numbers alike."
    ]


def missing_notes(cells: Sequence[Cell]) -> list[str]:
    """What an empty cell means, where there is one."""
    found = []
    if any(cell.ours is None for cell in cells):
        found.append(f'"{NOT_RUN}": this experiment has no record for the cell.')
    with_number = {cell.published is not None for cell in cells}
    if with_number == {True, False}:
        found.append(f'"{NONE}" in a column of the paper: it has no such number.')
    return found


def _change_notes(cells: Sequence[Cell]) -> list[str]:
    """Which standard errors of changes are those of paired runs."""
    changes = [cell for cell in cells if cell.quantity == "delta_from_tau_1"]
    if not changes:
        return []
    kinds = {
        (cell.benchmark, cell.ours.paired) for cell in changes if isinstance(cell.ours, Measured)
    }
    independent = [title for title in BENCHMARKS if (title, False) in kinds]
    paired = [t for t in BENCHMARKS if (t, True) in kinds and t not in independent]
    parts = []
    if paired:
        parts.append(f"from paired differences per question ({', '.join(paired)})")
    if independent:
        parts.append(f"as of independent runs, which is conservative ({', '.join(independent)})")
    known = "; ".join(parts) if parts else NOT_RUN
    return [f"Change: accuracy minus that of the same model in one-token mode; its error: {known}."]
