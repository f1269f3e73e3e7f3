"""Every published number beside ours, with a verdict by rules fixed before any run.

The rules are the constants and :func:`verdict` below, and the words of ``verdicts``;
docs/comparison.md says them at length.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path

from mars.paper import published
from mars.paper.claims.intervals import Uncertain
from mars.paper.claims.significance import stderr_of
from mars.paper.claims.verdicts import (
    AGREES,
    COMPATIBLE,
    DIFFERS,
    UNDECIDED,
    chance_to_differ,
    equivalence,
)
from mars.paper.evaluations import Evaluations
from mars.paper.published import AVERAGE, QUESTIONS
from mars.paper.specs import ComparisonSpec, Selection
from mars.paper.tables.evaluated import table_cells
from mars.paper.tables.files import pipe_table
from mars.paper.tables.notes import scale_notes
from mars.paper.tables.table import NONE, NOT_RUN, TableCell, quantity_title
from mars.paper.tables.tidy_csv import Line, as_csv, csv_text, full_row_name, read_csv
from mars.provenance.files import write_atomic

VERDICTS = (AGREES, COMPATIBLE, UNDECIDED, DIFFERS, "not comparable", NOT_RUN)
# A difference of at most this much does not matter: in the quantity's unit.
TOLERANCE = {
    "accuracy": 1.0,
    "delta_from_tau_1": 1.0,
    "gsm8k_delta": 1.0,
    "tokens_per_forward": 0.05,
    "tokens_per_target_forward": 0.05,
    "speedup_over_ar": 0.05,
    "speedup": 0.05,
}
# How far a printed number may be from the one it was rounded from. A change may be the difference
# of two printed numbers.
ROUNDING = {"accuracy": 0.05, "delta_from_tau_1": 0.1, "tokens_per_forward": 0.005}
# Quantities that a computer decides over, not a method.
OF_THE_MACHINE = ("tokens_per_second", "seconds")
BY_CHANCE = "of these by chance"
OVER_ROUNDS = ("speedup_over_ar", "speedup")  # their errors are over few rounds
RULES = {
    AGREES: "the 95 % interval of the difference lies within the tolerance for its quantity: 1 "
    "point of accuracy, 0.05 tokens per forward, 0.05 of a speed-up",
    COMPATIBLE: "the interval reaches beyond the tolerance and contains 0",
    UNDECIDED: "the interval does not contain 0 and lies partly within the tolerance",
    DIFFERS: "the interval lies wholly outside the tolerance",
    "rounds to it": "the paper's own checkpoint answered the same questions, and our number rounds "
    "to the printed one",
    "does not round to it": "the paper's own checkpoint answered the same questions, so our number "
    "should round to the printed one, and does not",
    "models": "the models are not the paper's, so absolute numbers cannot be compared, only the "
    "direction of the claims",
    "machine": "the number depends on the computer",
    "no error": "the standard error of the difference is unknown",
    NOT_RUN: "this experiment has no result for the cell",
}


@dataclass(frozen=True)
class Compared:
    """One published number beside ours; errors are None where they are not known.

    ``chance``: probability that it would be said to differ if it did not.
    """

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
    chance: float


def verdict(
    quantity: str,
    difference: float | None,
    stderr: float | None,
    same_models: bool,
    *,
    same_answers: bool = False,
    n: int | None = None,
) -> tuple[str, str, float]:
    """What to say of a difference from the paper, the key of the rule that says so, and by chance.

    Args:
        difference: ours minus the paper's; None if ours was not run.
        stderr: its standard error; None where it is not known.
        same_models: whether our model of the row started from the paper's base model.
        same_answers: whether it is the paper's very model, on all of the paper's questions: then
            nothing is left to chance, and only the rounding of the printed number to tolerate.
        n: rounds behind a speed-up.

    Returns:
        The last is the probability of *differs* if in truth there were no difference.
    """
    if difference is None:
        return NOT_RUN, NOT_RUN, 0.0
    if not same_models:
        return "not comparable", "models", 0.0
    if quantity in OF_THE_MACHINE:
        return "not comparable", "machine", 0.0
    if same_answers and quantity in ROUNDING:
        rounds = abs(difference) <= ROUNDING[quantity] + 1e-9
        return (AGREES, "rounds to it", 0.0) if rounds else (DIFFERS, "does not round to it", 0.0)
    if stderr is None:
        return "not comparable", "no error", 0.0
    freedom = n - 1 if n is not None and quantity in OVER_ROUNDS else inf
    uncertain, tolerance = Uncertain(difference, stderr, freedom), TOLERANCE[quantity]
    word = equivalence(uncertain, tolerance)
    return word, word, chance_to_differ(uncertain, tolerance)


def compare(lines: Iterable[Line], artefact: str, spec: ComparisonSpec) -> list[Compared]:
    """Compare the cells of one tidy table that have a published number."""
    cells = [line for line in lines if line["published"] != NONE]
    rows: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for cell in cells:
        row = rows.setdefault((cell["scale"], cell["row"]), {})
        row[cell["quantity"], cell["benchmark"]] = float(cell["published"])
    return [_compared(cell, artefact, spec, rows[cell["scale"], cell["row"]]) for cell in cells]


def _compared(
    cell: Line, artefact: str, spec: ComparisonSpec, row: Mapping[tuple[str, str], float]
) -> Compared:
    quantity, title = cell["quantity"], cell["benchmark"]
    ours = None if cell["value"] in (NOT_RUN, NONE) else float(cell["value"])
    paper, ours_stderr = float(cell["published"]), stderr_of(cell)
    paper_stderr = published_stderr(quantity, title, row, spec.titles)
    difference = None if ours is None else ours - paper
    # Of a quantity whose published error nobody can know, ours is what is left.
    errors = [error for error in (ours_stderr, paper_stderr) if error is not None]
    known = difference is not None and ours_stderr is not None
    stderr = math.hypot(*errors) if known else None
    n = int(cell["n"]) if cell.get("n", NONE).isdecimal() else None
    judged = verdict(
        quantity,
        difference,
        stderr,
        spec.same_models.get(cell["scale"], False),
        same_answers=cell.get("model") in spec.same_weights and n == _questions(title, spec.titles),
        n=n,
    )
    named = (artefact, cell["scale"], full_row_name(cell), title, quantity)
    return Compared(*named, ours, ours_stderr, paper, paper_stderr, difference, stderr, *judged)


def _questions(title: str, titles: Iterable[str]) -> int | None:
    """Questions of a real benchmark, or of all that an average is over."""
    names = list(titles) if title == AVERAGE else [title]
    return sum(QUESTIONS[name] for name in names) if QUESTIONS.keys() >= set(names) else None


def published_stderr(
    quantity: str, title: str, row: Mapping[tuple[str, str], float], titles: Iterable[str]
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
    if title not in QUESTIONS or not {(quantity, title), ("accuracy", title)} <= row.keys():
        return None
    after = row["accuracy", title]
    scores = {"accuracy": [after], "delta_from_tau_1": [after, after - row[quantity, title]]}
    errors = [_binomial(score, QUESTIONS[title]) for score in scores.get(quantity, ())]
    return math.hypot(*errors) if errors else None


def _binomial(percent: float, n: int) -> float:
    share = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / n)


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
    names = ("method", "draft", "target", "batch_size", "cache_block")
    scale = "7B"  # of the model that is timed, or of the target
    cells = []
    for line in published.table(number):
        extra = {key: int(line[key]) for key in ("batch_size", "cache_block") if line.get(key)}
        label = line["method"] if "method" in line else published.pair_label(line)
        cells += [
            TableCell(scale, label, key, "GSM8K", published=float(value), extra=extra)
            for key, value in line.items()
            if key not in names
        ]
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
    write_atomic(files[0], csv_text([one.name for one in fields(Compared)], map(_values, lines)))
    write_atomic(files[1], _as_markdown(lines, scale_notes(spec.scales)))
    return files


def _values(line: Compared) -> list[str | float]:
    missing = NOT_RUN if line.ours is None else NONE
    values = (asdict(line) | {"rule": RULES[line.rule]}).values()
    rounded = (round(value, 6) if isinstance(value, float) else value for value in values)
    return [missing if value is None else value for value in rounded]


def _as_markdown(lines: list[Compared], notes: list[str]) -> str:
    counts = Counter((line.artefact, line.verdict) for line in lines)
    heads = [*VERDICTS[: VERDICTS.index(DIFFERS) + 1], BY_CHANCE]
    heads += VERDICTS[len(heads) - 1 :]
    summary = [["Artefact", *heads], ["---", *["---:"] * len(heads)]]
    for name in dict.fromkeys(line.artefact for line in lines):
        chance = math.fsum(line.chance for line in lines if line.artefact == name)
        numbers = {word: str(counts[name, word]) for word in VERDICTS}
        summary.append([name, *(numbers.get(head, f"{chance:.1f}") for head in heads)])
    named = ["Artefact", "Scale", "Row", "Benchmark", "Quantity"]
    cells = [[*named, "Ours", "Paper", "Difference", "Verdict"]]
    cells += [["---"] * len(named) + ["---:"] * 3 + ["---"]]
    cells += [_shown(line) for line in lines if line.ours is not None]
    parts = [
        "# Our numbers and the published ones",
        "\n".join(f"- {note}" for note in notes),
        pipe_table(summary),
        f'The column "{BY_CHANCE}" has how many cells would be said to differ, on average, if '
        "every number of ours were the paper's but for chance.",
        "The rules, fixed before any run (docs/comparison.md):",
        "\n".join(f"- *{_word(key)}*: {text}." for key, text in RULES.items()),
        "## Cells that were run",
        "± one standard error; for a published accuracy, binomial over the real benchmark.",
        pipe_table(cells) if len(cells) > 2 else "None.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _word(rule: str) -> str:
    """The verdict that a rule gives."""
    words = {"rounds to it": AGREES, "does not round to it": DIFFERS}
    return rule if rule in VERDICTS else words.get(rule, "not comparable")


def _shown(line: Compared) -> list[str]:
    pairs = (
        (line.ours, line.ours_stderr),
        (line.published, line.published_stderr),
        (line.difference, line.stderr),
    )
    return [
        *(line.artefact, line.scale, line.row, line.benchmark, quantity_title(line.quantity)),
        *(f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}") for value, error in pairs),
        line.verdict,
    ]
