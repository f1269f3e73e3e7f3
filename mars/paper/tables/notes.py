"""What a reader must know to read a table of ours rightly, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mars.config.experiment import Data, GeneratedData
from mars.paper import published
from mars.paper.evaluations import Evaluations, benchmark_keys
from mars.paper.published import AVERAGE, BENCHMARKS
from mars.paper.specs import ModelIdentity, PaperScale, Selection, TableSpec
from mars.paper.tables.table import NONE, NOT_RUN, Measured, TableCell


def notes(
    name: str, spec: TableSpec, cells: Sequence[TableCell], evaluations: Evaluations
) -> list[str]:
    """The notes below table ``name``, made of ``cells``."""
    return [
        paper_note(name),
        *scale_notes(spec.scales),
        _question_note(spec, cells),
        *origin_notes(spec.models),
        *([data_note(spec.data)] if trains(spec.models) else []),
        *endpoint_notes(cells, evaluations),
        *_average_notes(spec, cells),
        *seed_notes(cells),
        *missing_notes(cells),
        *_change_notes(cells),
    ]


def paper_note(name: str) -> str:
    """What stands in the columns of the paper."""
    number = name.removeprefix("table")
    where = f"Table {number} of " if number != name else ""
    return (
        f"Our numbers are given ± one standard error. The paper's are those of {where}arXiv "
        "2604.07023, which gives no standard errors. Rows have the paper's names."
    )


def scale_notes(scales: Mapping[str, PaperScale]) -> list[str]:
    """For each scale, which base model stands for it; the plain statement if it is not the same."""
    descriptions = [
        f"{name} ({scale.base.name or 'a model trained from scratch here'}) stands in for "
        f"{scale.stands_for}"
        for name, scale in scales.items()
        if not is_of_the_paper(scale)
    ]
    if not descriptions:
        return []
    return [
        f"The scale differs: {'; '.join(descriptions)}. The paper's absolute numbers are not "
        "reproduced here; compare the direction of the differences between rows."
    ]


def is_of_the_paper(scale: PaperScale) -> bool:
    """Whether a scale's base model is the paper's own."""
    repository = scale.base.repository or ""
    return repository.endswith(f"/{published.base_model(scale.stands_for)}")


def origin_notes(models: Mapping[str, ModelIdentity]) -> list[str]:
    """Which models are released by the authors and which trained here, if any is released."""
    fine_tuned = {name: model for name, model in models.items() if model.method != "base"}
    released = {name: model.released for name, model in fine_tuned.items() if model.released}
    if not released:
        return []
    named = ", ".join(f"{name} ({repository})" for name, repository in released.items())
    trained = ", ".join(name for name in fine_tuned if name not in released) or "none"
    return [f"Released by the authors, not trained here: {named}. Trained here: {trained}."]


def trains(models: Mapping[str, ModelIdentity]) -> bool:
    """Whether any of the models was fine-tuned here."""
    return any(model.method != "base" and not model.released for model in models.values())


def _question_note(spec: Selection, cells: Sequence[TableCell]) -> str:
    """Questions per benchmark, and whether a limit cut them."""
    counts: dict[str, set[int]] = {cell.benchmark: set() for cell in cells}
    for cell in cells:
        if isinstance(cell.ours, Measured) and cell.ours.n:
            counts[cell.benchmark].add(cell.ours.n)
    parts = []
    for title, key in benchmark_keys(spec.benchmarks).items():
        if title in counts:
            benchmark = spec.benchmarks[key]
            text = f"{title} {' or '.join(map(str, sorted(counts[title]))) or NOT_RUN}"
            if benchmark.limit is not None:
                text += f" (limited to the first {benchmark.limit} of each task)"
            if benchmark.subtasks is not None:
                text += f" ({len(benchmark.subtasks)} sub-tasks)"
            parts.append(text)
    return f"Questions per benchmark: {', '.join(parts) or NONE}."


def data_note(data: Data) -> str:
    """What the models were fine-tuned on."""
    if isinstance(data, GeneratedData):
        return f"Fine-tuned on {data.instructions} instruction examples generated here."
    amount = f"{data.limit} examples" if data.limit else "all examples"
    return f"Fine-tuned on {amount} of {data.dataset}."


def endpoint_notes(cells: Sequence[TableCell], evaluations: Evaluations) -> list[str]:
    """Whose answers a server gave, where it gave any, and what is known of its weights."""
    shown = {(cell.model, cell.setting) for cell in cells}
    trained = evaluations.spec.models
    answered = [
        key.model
        for key, record in evaluations.records.items()
        if "endpoint" in record
        and {(key.model, key.setting), (trained[key.model].seed_of, key.setting)} & shown
    ]
    if not answered:
        return []
    return [
        f"Answered by a server, not decoded here: {', '.join(dict.fromkeys(answered))}, one token "
        "per forward. Its weights were not checked; the beginnings of a few answers to each "
        "benchmark were compared with the checkpoint's."
    ]


def _average_notes(spec: Selection, cells: Sequence[TableCell]) -> list[str]:
    titles = list(benchmark_keys(spec.benchmarks))
    if len(titles) == len(BENCHMARKS) or AVERAGE not in {cell.benchmark for cell in cells}:
        return []
    return [
        f"This experiment runs {len(titles)} of the six benchmarks; {AVERAGE} is over "
        f"{', '.join(titles)}, both for our numbers and for the paper's."
    ]


def seed_notes(cells: Sequence[TableCell]) -> list[str]:
    """What brackets mean, where a model was trained from several seeds."""
    counts = {len(cell.ours.seeds) for cell in cells if isinstance(cell.ours, Measured)} - {0}
    if not counts:
        return []
    number = " or ".join(map(str, sorted(counts)))
    return [
        f"Where brackets follow, the number is the mean over {number} trainings that differ in "
        "their seed, and the brackets hold the lowest and the highest of them. The standard error "
        "is then over questions and seeds."
    ]


def missing_notes(cells: Sequence[TableCell]) -> list[str]:
    """What an empty cell means, where there is one."""
    found = []
    if any(cell.ours is None for cell in cells):
        found.append(f'"{NOT_RUN}": this experiment has no result for the cell.')
    if {cell.published is not None for cell in cells} == {True, False}:
        found.append(f'"{NONE}" in a paper column: the paper gives no such number.')
    return found


def _change_notes(cells: Sequence[TableCell]) -> list[str]:
    """Which standard errors of changes are those of paired runs."""
    changes = [cell for cell in cells if cell.quantity == "delta_from_tau_1"]
    if not changes:
        return []
    kinds = {(c.benchmark, c.ours.paired) for c in changes if isinstance(c.ours, Measured)}
    independent = [title for title in BENCHMARKS if (title, False) in kinds]
    paired = [t for t in BENCHMARKS if (t, True) in kinds and t not in independent]
    parts = []
    if paired:
        parts.append(f"from paired differences per question ({', '.join(paired)})")
    if independent:
        parts.append(f"as for independent runs, which is conservative ({', '.join(independent)})")
    change = "Change: accuracy minus the accuracy of the same model in one-token mode."
    error = f" Its standard error is computed {' and '.join(parts)}." if parts else ""
    return [change + error]
