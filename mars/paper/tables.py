"""Tables 2 and 4 of the paper from our evaluation records, published numbers beside ours.

Rows are the paper's. Our model for a row is found by what it is (scale, method, block size, loss,
epochs), never by its name; a row or cell that nothing was run for says so.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars.evaluation.scores import Score, average, headline, mean, tokens_per_forward
from mars.files import write_atomic
from mars.paper import published
from mars.paper.evaluations import Cell
from mars.paper.origin import origin_notes, trains
from mars.paper.published import AVERAGE, BENCHMARKS, STAGE_EPOCHS

NOT_RUN = "not run"
NO_ERROR = "n/a"
CAPTIONS = {
    2: "One-token mode: accuracy (%), one token per forward.",
    4: "Multi-token mode: accuracy (%), its change from one-token mode (points), "
    "tokens per forward.",
}
# Quantity: what a reader sees, and how a number of it is written.
QUANTITIES = {
    "accuracy": ("accuracy", ".1f"),
    "delta_from_tau_1": ("change", "+.1f"),
    "tokens_per_forward": ("tokens/forward", ".2f"),
}
CSV_COLUMNS = (
    "scale",
    "row",
    "model",
    "setting",
    "benchmark",
    "quantity",
    "value",
    "stderr",
    "published",
    "n",
)

Records = Mapping[Cell, Mapping[str, Any]]
Samples = Mapping[Cell, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Measured:
    """A number of ours: percent, points, or tokens per forward.

    Attributes:
        stderr: standard error in the unit of ``value``; None where it is not known.
        n: questions behind it.
        paired: of a change: whether ``stderr`` comes from per-question differences.
    """

    value: float
    stderr: float | None
    n: int
    paired: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table: a quantity of one row, by benchmark title and "Avg".

    Attributes:
        model: name of our model in the experiment; None when it has no such model.
        setting: name of the decoding setting; None when the experiment has no such setting.
    """

    scale: str
    label: str
    model: str | None
    setting: str | None
    quantity: str
    ours: dict[str, Measured | None]
    published: dict[str, float]


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
        number: 2 or 4, as in the paper.
        experiment_spec: plain values in the shape of the configuration: ``data``, ``scales``,
            ``models``, ``benchmarks`` and ``settings``.
        records: evaluation records by (model, setting, benchmark); missing ones are "not run".
        samples: the documents behind a record, as :mod:`mars.evaluation.evaluate` writes them;
            with them the change from one-token mode has the standard error of paired runs.
        output: folder; made if needed.

    Returns:
        The three files.
    """
    lines = table_lines(number, experiment_spec, records, samples)
    notes = _notes(number, experiment_spec, lines)
    contents = {
        "csv": _as_csv(lines),
        "md": _as_markdown(number, lines, notes),
        "tex": _as_latex(number, lines, notes),
    }
    files = []
    for suffix, content in contents.items():
        files.append(Path(output) / f"table{number}.{suffix}")
        write_atomic(files[-1], content)
    return files


def table_lines(
    number: int, spec: Mapping[str, Any], records: Records, samples: Samples | None = None
) -> list[Line]:
    """The lines of a table, in the paper's order; arguments as of :func:`write_table`."""
    rows = {2: published.table2, 4: published.table4}[number]()
    lines = []
    for row in rows:
        models: list[str | None] = [*_models_for(row, spec)]
        for model in models or [None]:
            label = row.label if len(models) < 2 else f"{row.label} [{model}]"
            setting = _setting(spec, row.tau)
            for quantity, scores in row.scores.items():
                ours = _measure(quantity, model, setting, spec, records, samples or {})
                paper = _comparable(scores, spec)
                lines.append(Line(row.scale, label, model, setting, quantity, ours, paper))
    return lines


# --- measuring ----------------------------------------------------------------------------------


def _models_for(row: published.Row, spec: Mapping[str, Any]) -> list[str]:
    """Our models that are what the published row is."""
    return [
        name
        for name, model in spec["models"].items()
        if spec["scales"][model["scale"]]["stands_for"] == row.scale
        and model["method"] == row.method
        and model["block_size"] == row.block_size
        and row.sft_loss in (None, model["ar_weight"] > 0)
        and row.epochs in (0, STAGE_EPOCHS * model["epochs_factor"])
    ]


def _setting(spec: Mapping[str, Any], tau: float | None) -> str | None:
    """Name of the setting with this threshold; ``None`` as tau is one-token mode."""
    for name, setting in spec["settings"].items():
        if setting["threshold"] == tau and setting["metric"] == "probability":
            return name
    return None


def _titles(spec: Mapping[str, Any]) -> dict[str, str]:
    """Key of each of the paper's benchmarks that the experiment has, by title, in paper order."""
    keys = {benchmark["title"]: key for key, benchmark in spec["benchmarks"].items()}
    return {title: keys[title] for title in BENCHMARKS if title in keys}


def _measure(
    quantity: str,
    model: str | None,
    setting: str | None,
    spec: Mapping[str, Any],
    records: Records,
    samples: Samples,
) -> dict[str, Measured | None]:
    """A quantity of one row on each benchmark, and its average."""
    ours: dict[str, Measured | None] = dict.fromkeys((*BENCHMARKS, AVERAGE))
    keys = _titles(spec)
    one_token_setting = _setting(spec, None)
    if model is None or setting is None or one_token_setting is None:
        return ours
    for title, key in keys.items():
        at_tau, one_token = (model, setting, key), (model, one_token_setting, key)
        if at_tau not in records:
            continue
        benchmark = spec["benchmarks"][key]
        if quantity == "tokens_per_forward":
            ours[title] = _tokens_per_forward(records[at_tau])
        elif quantity == "accuracy":
            ours[title] = _accuracy(records[at_tau], benchmark)
        elif one_token in records:
            differences = _differences(samples.get(at_tau), samples.get(one_token), benchmark)
            ours[title] = _change(records[at_tau], records[one_token], benchmark, differences)
    ours[AVERAGE] = _average([ours[title] for title in keys])
    return ours


def _accuracy(record: Mapping[str, Any], benchmark: Mapping[str, Any]) -> Measured:
    return _measured(headline(record, benchmark), 100, record["documents"])


def _tokens_per_forward(record: Mapping[str, Any]) -> Measured | None:
    if record["tokens_per_forward"] is None:
        return None
    return _measured(tokens_per_forward(record), 1, record["documents"])


def _change(
    record: Mapping[str, Any],
    one_token: Mapping[str, Any],
    benchmark: Mapping[str, Any],
    differences: list[float],
) -> Measured:
    """Accuracy minus that in one-token mode, in points.

    The two runs answer the same questions, so the standard error is that of the mean of the
    per-question ``differences``. Where there are none, or the score is no mean over questions, it
    is that of independent runs, which is larger when the two runs' answers agree.
    """
    after, before = headline(record, benchmark), headline(one_token, benchmark)
    change = after.value - before.value
    paired = mean(differences) if len(differences) > 1 else None
    if paired is not None and math.isclose(paired.value, change, abs_tol=1e-9):
        return _measured(paired, 100, record["documents"], paired=True)
    errors = [error for error in (after.stderr, before.stderr) if error is not None]
    stderr = math.hypot(*errors) if len(errors) == 2 else None
    return _measured(Score(change, stderr), 100, record["documents"])


def _differences(
    after: Sequence[Mapping[str, Any]] | None,
    before: Sequence[Mapping[str, Any]] | None,
    benchmark: Mapping[str, Any],
) -> list[float]:
    """Per-question differences; none unless both runs have a number for the same questions."""
    after_scores, before_scores = _scores(after, benchmark), _scores(before, benchmark)
    if after_scores.keys() != before_scores.keys():
        return []
    return [after_scores[question] - before_scores[question] for question in after_scores]


def _scores(
    samples: Sequence[Mapping[str, Any]] | None, benchmark: Mapping[str, Any]
) -> dict[tuple[str, int], float]:
    """The benchmark's score of each question; nothing if it is not one number per question."""
    scores = {}
    for sample in samples or ():
        score = sample["scores"].get(benchmark["filter"], {}).get(benchmark["metric"])
        if not isinstance(score, bool | int | float):
            return {}
        scores[sample["task"], sample["document"]] = float(score)
    return scores


def _average(parts: list[Measured | None]) -> Measured | None:
    """Mean over benchmarks, which are independent samples; None unless all are there."""
    present = [part for part in parts if part is not None]
    if not present or len(present) < len(parts):
        return None
    score = average(Score(part.value, part.stderr) for part in present)
    paired = all(part.paired for part in present)
    return _measured(score, 1, sum(part.n for part in present), paired)


def _measured(score: Score, unit: float, n: int, paired: bool = False) -> Measured:
    stderr = None if score.stderr is None else unit * score.stderr
    return Measured(unit * score.value, stderr, n, paired)


def _comparable(scores: Mapping[str, float], spec: Mapping[str, Any]) -> dict[str, float]:
    """Published scores; their average over the experiment's benchmarks if it has fewer."""
    titles = list(_titles(spec))
    if not titles or len(titles) == len(BENCHMARKS):
        return dict(scores)
    return {**scores, AVERAGE: sum(scores[title] for title in titles) / len(titles)}


# --- notes --------------------------------------------------------------------------------------


def _notes(number: int, spec: Mapping[str, Any], lines: list[Line]) -> list[str]:
    """What a reader must know to read the table rightly."""
    notes = [
        f"Ours: ± one standard error; paper: the number of Table {number} of arXiv 2604.07023, "
        "which gives no standard errors. Rows carry the paper's names.",
        *_scale_notes(spec),
        _question_note(spec, lines),
        *origin_notes(spec),
        *([_data_note(spec["data"])] if trains(spec) else []),
    ]
    if len(titles := list(_titles(spec))) < len(BENCHMARKS):
        notes.append(
            f"This experiment has {len(titles)} of the six benchmarks; {AVERAGE} is over "
            f"{', '.join(titles)}, for ours and the paper's numbers alike."
        )
    if any(line.ours[title] is None for line in lines for title in line.ours):
        notes.append(f'"{NOT_RUN}": this experiment has no record for the cell.')
    if number == 4:
        notes.append(_change_note(lines))
    return notes


def _scale_notes(spec: Mapping[str, Any]) -> list[str]:
    """For each scale, which base model stands for it; the plain statement if it is not the same."""
    descriptions = []
    for name, scale in spec["scales"].items():
        base, size = scale["base"], scale["stands_for"]
        if base.get("repository", "").endswith(f"/{published.base_model(size)}"):
            continue
        what = base.get("repository") or base.get("package") or "a model trained from scratch here"
        descriptions.append(f"{size} is stood for by {name} ({what})")
    if not descriptions:
        return []
    return [
        f"Scale differs: {'; '.join(descriptions)}. The paper's absolute numbers are not "
        "reproduced here; compare the direction of the differences between rows."
    ]


def _question_note(spec: Mapping[str, Any], lines: list[Line]) -> str:
    """Questions per benchmark, and whether a limit cut them."""
    parts = []
    for title, key in _titles(spec).items():
        counts = sorted({cell.n for line in lines if (cell := line.ours[title]) is not None})
        text = " or ".join(str(count) for count in counts) or NOT_RUN
        benchmark = spec["benchmarks"][key]
        if (limit := benchmark["limit"]) is not None:
            text += f" (limited to the first {limit} of each task)"
        if benchmark["subtasks"] is not None:
            text += f" ({len(benchmark['subtasks'])} sub-tasks)"
        parts.append(f"{title} {text}")
    return f"Questions: {', '.join(parts)}."


def _data_note(data: Mapping[str, Any]) -> str:
    if data["source"] == "generated":
        return f"Fine-tuned on {data['instructions']} instruction examples generated here."
    amount = f"{data['limit']} examples" if data["limit"] else "all examples"
    return f"Fine-tuned on {amount} of {data['dataset']}."


def _change_note(lines: list[Line]) -> str:
    changes = [
        (title, cell.paired)
        for line in lines
        if line.quantity == "delta_from_tau_1"
        for title, cell in line.ours.items()
        if cell is not None and title != AVERAGE
    ]
    independent = [title for title in BENCHMARKS if (title, False) in changes]
    paired = [t for t in BENCHMARKS if (t, True) in changes and t not in independent]
    parts = []
    if paired:
        parts.append(f"from paired differences per question ({', '.join(paired)})")
    if independent:
        parts.append(f"as of independent runs, which is conservative ({', '.join(independent)})")
    known = "; ".join(parts) if parts else NOT_RUN
    return f"Change: accuracy minus that of the same model in one-token mode; its error: {known}."


# --- rendering ----------------------------------------------------------------------------------


def _as_csv(lines: Iterable[Line]) -> str:
    """One cell per line, in full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in lines:
        for title, cell in line.ours.items():
            value: float | str = NOT_RUN
            stderr: float | str = NOT_RUN
            n: int | str = NOT_RUN
            if cell is not None:
                value, n = round(cell.value, 6), cell.n
                stderr = NO_ERROR if cell.stderr is None else round(cell.stderr, 6)
            writer.writerow(
                (
                    line.scale,
                    line.label,
                    line.model or NOT_RUN,
                    line.setting or NOT_RUN,
                    title,
                    line.quantity,
                    value,
                    stderr,
                    round(line.published[title], 4),
                    n,
                )
            )
    return stream.getvalue()


def _as_markdown(number: int, lines: list[Line], notes: list[str]) -> str:
    columns = (*BENCHMARKS, AVERAGE)
    quantity = number != 2
    header = ["Scale", "Model", *(["Quantity"] if quantity else [])]
    header += [name for title in columns for name in (title, "paper")]
    align = ["---"] * (len(header) - 2 * len(columns)) + ["---:"] * 2 * len(columns)
    body = [[*_stub(line, quantity), *_cells(line)] for line in lines]
    rows = [header, align, *body]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    bullets = "\n".join(f"- {note}" for note in notes)
    return f"# Table {number}\n\n{CAPTIONS[number]}\n\n{table}\n\n{bullets}\n"


def _as_latex(number: int, lines: list[Line], notes: list[str]) -> str:
    columns = (*BENCHMARKS, AVERAGE)
    quantity = number != 2
    stub = ["Scale", "Model", *(["Quantity"] if quantity else [])]
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{latex(title)}}}" for title in columns)
    rules = "".join(
        rf"\cmidrule(lr){{{first}-{first + 1}}}"
        for first in range(len(stub) + 1, len(stub) + 2 * len(columns), 2)
    )
    body = []
    for index, line in enumerate(lines):
        if index and line.scale != lines[index - 1].scale:
            body.append(r"\midrule")
        cells = [latex(text) for text in (*_stub(line, quantity), *_cells(line))]
        body.append(" & ".join(cells) + r" \\")
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs,graphicx}.",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex(CAPTIONS[number])}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(stub)}{'rr' * len(columns)}}}",
            r"\toprule",
            " & ".join([*([""] * len(stub)), heads]).strip() + r" \\",
            rules,
            " & ".join([*stub, *(["ours", "paper"] * len(columns))]) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\medskip\footnotesize\raggedright",
            latex(" ".join(notes)),
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Plain text as LaTeX: special characters escaped, signs of numbers as such."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: rf"\{character}" for character in "&%$#_{}"}
    # A cell that opens with [ would be read as the optional argument of the \\ before it.
    special |= {"[": "{[}", "]": "{]}", "±": r"$\pm$"}
    escaped = "".join(special.get(character, character) for character in text)
    return re.sub(r"^[+-](?=\d)", lambda sign: f"${sign[0]}$", escaped)


def _stub(line: Line, quantity: bool) -> list[str]:
    return [line.scale, line.label, *([QUANTITIES[line.quantity][0]] if quantity else [])]


def _cells(line: Line) -> list[str]:
    """Ours and the paper's number, by turns."""
    form = QUANTITIES[line.quantity][1]
    return [
        text
        for title in (*BENCHMARKS, AVERAGE)
        for text in (
            written(line.ours[title], line.quantity),
            format(line.published[title], form),
        )
    ]


def written(cell: Measured | None, quantity: str) -> str:
    """A number of ours as tables show it, e.g. ``62.5 ± 4.3``."""
    if cell is None:
        return NOT_RUN
    form = QUANTITIES[quantity][1]
    error = NO_ERROR if cell.stderr is None else format(cell.stderr, form.lstrip("+"))
    return f"{format(cell.value, form)} ± {error}"
