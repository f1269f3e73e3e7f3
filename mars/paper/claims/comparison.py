"""Every published number beside ours, with a verdict by rules fixed before any run.

The rules are the constants and :func:`verdict` below; docs/comparison.md says them in words.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mars.paper import published
from mars.paper.claims.significance import Z, stderr_of
from mars.paper.evaluations import Evaluations
from mars.paper.published import AVERAGE, QUESTIONS
from mars.paper.specs import ComparisonSpec, Selection
from mars.paper.tables.evaluated import table_cells
from mars.paper.tables.files import pipe_table
from mars.paper.tables.notes import scale_notes
from mars.paper.tables.table import NONE, NOT_RUN, TableCell, quantity_title
from mars.paper.tables.tidy_csv import Line, as_csv, csv_text, full_row_name, read_csv
from mars.provenance.files import write_atomic

VERDICTS = ("agrees", "within noise", "differs", "not comparable", NOT_RUN)
# A difference of at most this much is an agreement, however sure it is: in the quantity's unit.
TOLERANCE = {
    "accuracy": 1.0,
    "delta_from_tau_1": 1.0,
    "gsm8k_delta": 1.0,
    "tokens_per_forward": 0.05,
    "tokens_per_target_forward": 0.05,
    "speedup_over_ar": 0.05,
    "speedup": 0.05,
}
# Quantities that a computer decides over, not a method.
OF_THE_MACHINE = ("tokens_per_second", "seconds")
RULES = {
    "agrees": "the difference is at most the tolerance of its quantity: 1 point of accuracy, "
    "0.05 tokens per forward, 0.05 of a speed-up",
    "within noise": "the difference is more than that and at most 1.96 of its standard errors",
    "differs": "the difference is more than both",
    "models": "the models are not the paper's: their absolute numbers are others; only the "
    "direction of the claims is comparable",
    "machine": "it is a property of the computer",
    "no error": "the difference has no known standard error, so noise cannot be told from effect",
    NOT_RUN: "this experiment has no record for the cell",
}


@dataclass(frozen=True)
class Compared:
    """One published number beside ours; errors are None where they are not known."""

    artefact: str
    scale: str
    row: str
    benchmark: str
    quantity: str
    ours: float | None
    ours_stderr: float | None
    published: float
    published_stderr: float | None
    difference: float | None
    stderr: float | None
    verdict: str
    rule: str


def verdict(
    quantity: str, difference: float | None, stderr: float | None, same_models: bool
) -> tuple[str, str]:
    """What to say of a difference from the paper, and the key of the rule that says so.

    Args:
        difference: ours minus the paper's; None if ours was not run.
        stderr: its standard error; None where it is not known.
        same_models: whether our model of the row started from the paper's base model.
    """
    if difference is None:
        return NOT_RUN, NOT_RUN
    if not same_models:
        return "not comparable", "models"
    if quantity in OF_THE_MACHINE:
        return "not comparable", "machine"
    if abs(difference) <= TOLERANCE[quantity]:
        return "agrees", "agrees"
    if stderr is None:
        return "not comparable", "no error"
    word = "within noise" if abs(difference) <= Z * stderr else "differs"
    return word, word


def compare(lines: Iterable[Line], artefact: str, spec: ComparisonSpec) -> list[Compared]:
    """Compare the cells of one tidy table that have a published number."""
    cells = [line for line in lines if line["published"] != NONE]
    row_scores = {
        (c["scale"], c["row"], c["quantity"], c["benchmark"]): float(c["published"]) for c in cells
    }
    return [_compared(cell, artefact, spec, row_scores) for cell in cells]


def _compared(
    cell: Line,
    artefact: str,
    spec: ComparisonSpec,
    row_scores: Mapping[tuple[str, str, str, str], float],
) -> Compared:
    ours, ours_stderr = _number(cell["value"]), stderr_of(cell)
    paper = float(cell["published"])
    paper_stderr = published_stderr(
        cell["quantity"],
        cell["benchmark"],
        {
            (quantity, title): score
            for (scale, row, quantity, title), score in row_scores.items()
            if (scale, row) == (cell["scale"], cell["row"])
        },
        spec.titles,
    )
    # Of a quantity whose published error nobody can know, ours is what is left.
    errors = [error for error in (ours_stderr, paper_stderr) if error is not None]
    stderr = math.hypot(*errors) if ours_stderr is not None else None
    difference = None if ours is None else ours - paper
    same_models = spec.same_models.get(cell["scale"], False)
    word, rule = verdict(cell["quantity"], difference, stderr, same_models)
    return Compared(
        artefact=artefact,
        scale=cell["scale"],
        row=full_row_name(cell),
        benchmark=cell["benchmark"],
        quantity=cell["quantity"],
        ours=ours,
        ours_stderr=ours_stderr,
        published=paper,
        published_stderr=paper_stderr,
        difference=difference,
        stderr=None if difference is None else stderr,
        verdict=word,
        rule=rule,
    )


def published_stderr(
    quantity: str,
    title: str,
    row: Mapping[tuple[str, str], float],
    titles: Iterable[str],
) -> float | None:
    """Standard error of a published number, which the paper does not print; None if unknown.

    Of an accuracy it is binomial over the questions of the real benchmark, of the average that of
    independent benchmarks. Of a change from one-token mode it is that of independent runs, which is
    too large, since both runs answered the same questions.

    Args:
        row: the row's published numbers by (quantity, title).
        titles: the benchmarks that "Avg" is over.
    """
    if title == AVERAGE:
        parts = [published_stderr(quantity, part, row, ()) for part in titles]
        known = [part for part in parts if part is not None]
        return math.hypot(*known) / len(parts) if parts and len(known) == len(parts) else None
    if title not in QUESTIONS or (quantity, title) not in row:
        return None
    if quantity == "accuracy":
        return _binomial(row[quantity, title], QUESTIONS[title])
    if quantity == "delta_from_tau_1" and ("accuracy", title) in row:
        after = row["accuracy", title]
        before = after - row[quantity, title]
        return math.hypot(*(_binomial(score, QUESTIONS[title]) for score in (after, before)))
    return None


def _binomial(percent: float, n: int) -> float:
    share = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / n)


def _number(text: str) -> float | None:
    return None if text in (NOT_RUN, NONE) else float(text)


# --- cells that nothing was made for ------------------------------------------------------------


def published_lines(number: int) -> list[Line]:
    """The lines of a table that this experiment does not make: published numbers, none of ours."""
    if number in published.ROWS:
        nothing = Selection(scales={}, models={}, benchmarks={}, settings={})
        cells = table_cells(published.ROWS[number](), Evaluations(nothing, {}))
    else:
        cells = _speed_cells(number)
    return list(csv.DictReader(io.StringIO(as_csv(cells))))


def _speed_cells(number: int) -> list[TableCell]:
    """Tables 5 and 6: a row of the CSV is a row of the table, a column a quantity."""
    names = {5: ("method",), 6: ("draft", "target")}[number]
    cells = []
    for line in published.table(number):
        extra = {key: int(line[key]) for key in ("batch_size", "cache_block") if line.get(key)}
        label = published.pair_label(line) if number == 6 else line["method"]
        for key, value in line.items():
            if key not in (*names, "batch_size", "cache_block"):
                scale = "7B"  # of the model that is timed, or of the target
                cells.append(
                    TableCell(scale, label, key, "GSM8K", published=float(value), extra=extra)
                )
    return cells


# --- files --------------------------------------------------------------------------------------


def write_comparison(spec: ComparisonSpec, made: Mapping[str, Path], output: Path) -> list[Path]:
    """Write ``comparison.csv`` and ``comparison.md`` into the folder ``output``.

    Args:
        made: the tidy CSV of each table that was made, by name; the others are "not run".
    """
    lines: list[Compared] = []
    for name, number in spec.tables.items():
        rows = read_csv(made[name]) if name in made else published_lines(number)
        lines += compare(rows, name, spec)
    files = [output / "comparison.csv", output / "comparison.md"]
    write_atomic(files[0], _as_csv(lines))
    write_atomic(files[1], _as_markdown(lines, scale_notes(spec.scales)))
    return files


def _as_csv(lines: list[Compared]) -> str:
    rows = [_as_written(line) for line in lines]
    return csv_text(list(Compared.__dataclass_fields__), rows)


def _as_written(line: Compared) -> list[str | float]:
    missing = NOT_RUN if line.ours is None else NONE
    values = (asdict(line) | {"rule": RULES[line.rule]}).values()
    rounded = (round(value, 6) if isinstance(value, float) else value for value in values)
    return [missing if value is None else value for value in rounded]


def _as_markdown(lines: list[Compared], notes: list[str]) -> str:
    counts = Counter((line.artefact, line.verdict) for line in lines)
    artefacts = list(dict.fromkeys(line.artefact for line in lines))
    summary = [["Artefact", *VERDICTS], ["---", *["---:"] * len(VERDICTS)]]
    summary += [[name, *(str(counts[name, word]) for word in VERDICTS)] for name in artefacts]
    cells = [["Artefact", "Scale", "Row", "Benchmark", "Quantity", "Ours", "Paper", "Difference"]]
    cells[0] += ["Verdict"]
    cells += [["---"] * 5 + ["---:"] * 3 + ["---"]]
    cells += [_shown(line) for line in lines if line.ours is not None]
    parts = [
        "# Our numbers against the published ones",
        "\n".join(f"- {note}" for note in notes),
        pipe_table(summary),
        "The rules, fixed before any run (docs/comparison.md):",
        "\n".join(f"- *{key}*: {text}." for key, text in RULES.items()),
        "## Cells that were run",
        "± one standard error; of a published accuracy, binomial over the real benchmark.",
        pipe_table(cells) if len(cells) > 2 else "None.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(line: Compared) -> list[str]:
    def number(value: float | None, error: float | None) -> str:
        text = NONE if value is None else f"{value:.2f}"
        return text if error is None else f"{text} ± {error:.2f}"

    return [
        *(line.artefact, line.scale, line.row, line.benchmark, quantity_title(line.quantity)),
        number(line.ours, line.ours_stderr),
        number(line.published, line.published_stderr),
        number(line.difference, line.stderr),
        line.verdict,
    ]
