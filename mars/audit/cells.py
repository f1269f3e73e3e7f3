"""The numbers of the paper's tables: found from what a person types, derived again, audited."""

from __future__ import annotations

import copy
import csv
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from mars.audit.packed import OF_SAMPLES
from mars.audit.record_graph import Link, Problem, RecordGraph, worst
from mars.errors import UserError
from mars.evaluation.stage import cell_spec
from mars.paper.artefacts import ARTEFACTS
from mars.paper.specs import seeds_of
from mars.paper.tables.table import NONE, NOT_RUN
from mars.paper.tables.tidy_csv import full_row_name
from mars.planning.differences import spec_of
from mars.provenance.files import canonical_json
from mars.provenance.manifest import NAME as MANIFEST


@dataclass(frozen=True)
class CellLine:
    """One line of a tidy table CSV; ``file`` and ``table`` say of which."""

    file: str
    table: str
    scale: str
    row: str
    model: str
    setting: str
    benchmark: str
    quantity: str
    value: str
    stderr: str
    n: str
    against: str = ""
    cache_block: str = ""
    batch_size: str = ""

    @property
    def row_name(self) -> str:
        """The row, with what else tells it from its neighbours in a table of speed."""
        return full_row_name(vars(self))

    @property
    def column(self) -> str:
        """What its column is called: the benchmark, or of a cost what was measured."""
        return self.quantity if self.benchmark == NONE else self.benchmark

    @property
    def title(self) -> str:
        parts = (self.table, f"{self.scale} {self.row_name}", self.column, self.quantity)
        return ", ".join(dict.fromkeys(parts))


@dataclass(frozen=True)
class Audited:
    """A cell, what is wrong with it, the evaluations behind it, and the jobs behind those."""

    cell: CellLine
    problems: list[Problem]
    evaluations: list[str]
    chain: list[Link]

    @property
    def word(self) -> str:
        return worst([*self.problems, *(found for link in self.chain for found in link.problems)])


class Tables:
    """The cells of all tables of an experiment, with the evaluations they are made from."""

    def __init__(self, records: RecordGraph):
        self.records = records
        results = records.results
        self.cells: list[CellLine] = []
        self.missing: list[Problem] = []
        # Figures have no cells.
        self.names = [n for n in records.experiment.artefacts if ARTEFACTS[n].kind == "table"]
        for table in self.names:
            file = str(results / f"tables/{table}.csv")
            if records.maker(file) is None or not (records.root / file).is_file():
                self.missing.append(Problem("missing", file, "the table or its record is not here"))
            else:
                self.cells += _read_cells(records.root, file, table)
        self._keys = {item.title: key for key, item in records.experiment.benchmarks.items()}
        self._folder = results / "evaluations"
        self._read: dict[str, dict[str, Any]] = {}
        for file in records.files("evaluations/*/*/*.json"):
            try:
                evaluation = json.loads(records.read(file) or b"")
                evaluation["metrics"], evaluation["cell_spec"]["benchmark"]
            except (ValueError, KeyError, TypeError):
                continue  # its hash tells that it was changed
            self._read[file] = evaluation

    def find(self, table: str, row: str, column: str, quantity: str | None = None) -> CellLine:
        """The cell that these words mean; capitals, hyphens and brackets do not matter.

        Raises:
            UserError: no cell, or more than one, fits; the sentence says what is there.
        """
        if self.missing and not self.cells:
            raise UserError(f"{self.missing[0].file} is not here; run the experiment first.")
        found = _choose("table", table, self.cells, lambda cell: [cell.table])
        # Rows that were run come first: a name may fit the same row of a scale that was not.
        run = [cell for cell in found if cell.value != NOT_RUN]
        found = _choose("row", row, run if _matches(row, run, _row_names) else found, _row_names)
        found = _choose("column", column, found, lambda cell: [cell.column])
        wanted = quantity or found[0].quantity
        return _choose("quantity", wanted, found, lambda cell: [cell.quantity])[0]

    def audit(self, cell: CellLine) -> Audited:
        """Check a cell, and everything it rests on."""
        table = self.records.maker(cell.file)
        assert table is not None
        if cell.value == NOT_RUN:
            return Audited(cell, [], [], [self.records.link(table)])
        if not ARTEFACTS[cell.table].from_evaluations:
            return Audited(cell, [], [], self._chain_of_jobs(table, cell))
        value, sources = self._number(cell)
        problems = [found for file in sources for found in self._of_evaluation(file)]
        if value is not None and not agrees(cell.value, value):
            text = f"{cell.title} is {cell.value}, the evaluation records give {value:.6f}"
            problems.append(Problem("changed", cell.file, text))
        chain = {table: self.records.link(table)}
        for file in sources:
            if (maker := self.records.maker(file)) is not None:
                chain |= {link.record: link for link in self.records.chain(maker)}
        return Audited(cell, problems, sources, list(chain.values()))

    def _number(self, cell: CellLine) -> tuple[float | None, list[str]]:
        """A cell's number from the evaluation records, if it is one, and which these are."""
        derived = [self._derive(part) for part in self._parts(cell)]
        values = [value for value, _ in derived]
        sources = list(dict.fromkeys(file for _, files in derived for file in files))
        return math.fsum(values) / len(values) if values and None not in values else None, sources

    def number(self, cell: CellLine, again: Mapping[str, dict[str, Any]]) -> float | None:
        """A cell's number if these evaluations, by file, were the recorded ones."""
        other = copy.copy(self)
        other._read = {**self._read, **again}
        return other._number(cell)[0] if ARTEFACTS[cell.table].from_evaluations else None

    def from_answers(self, file: str, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """An evaluation record with the score and the counts that its answers add up to."""
        record = self._read[file]
        benchmark = record["cell_spec"]["benchmark"]
        metric, name = benchmark["metric"], benchmark["filter"]
        score = fmean(answer["scores"][name][metric] for answer in answers)
        counts = {
            key: sum(answer[key] for answer in answers) for key in ("tokens", "forwards", "overrun")
        }
        return {
            **record,
            **counts,
            "documents": len(answers),
            "metrics": {metric: {name: {"value": score}}},
            "tokens_per_forward": {"value": counts["tokens"] / counts["forwards"]},
        }

    def sources(self, cell: CellLine) -> dict[str, list[str]]:
        """The jobs that a cell is made by, by record, the table's first, and of an evaluation the
        files that the cell is from. These files need not be here."""
        table = self.records.maker(cell.file)
        assert table is not None
        found: dict[str, list[str]] = {table: []}
        if cell.value == NOT_RUN:
            return found
        if not ARTEFACTS[cell.table].from_evaluations:
            return found | {maker: [] for maker in self._jobs_of(table, cell)}
        for file in self._number(cell)[1]:
            maker = self.records.maker(str(Path(file).parents[1] / MANIFEST))
            if maker is not None:
                found.setdefault(maker, []).append(file)
        return found

    def _jobs_of(self, table: str, cell: CellLine) -> list[str]:
        """The jobs that a table took in: those of the cell's model, where it names one."""
        makers = dict.fromkeys(map(self.records.maker, self.records.records[table]["inputs"]))
        named = [maker for maker in makers if maker and self._model_of(maker) == cell.model]
        return named or [maker for maker in makers if maker]

    def _chain_of_jobs(self, table: str, cell: CellLine) -> list[Link]:
        """The jobs behind a cell that is no score."""
        links = [self.records.link(table)]
        for maker in self._jobs_of(table, cell):
            links += [link for link in self.records.chain(maker) if link not in links]
        return links

    def _model_of(self, record: str) -> str | None:
        return self.records.records[record]["spec"]["target"].get("model")

    def describe(self, file: str) -> str:
        """An evaluation record in one line: the score it holds, and what it cost."""
        record = self._read.get(file)
        if record is None:
            return f"{file}, which cannot be read"
        benchmark = record["cell_spec"]["benchmark"]
        score = record["metrics"][benchmark["metric"]][benchmark["filter"]]["value"]
        return (
            f"{file}: {benchmark['metric']} ({benchmark['filter']}) {score:.4f} over"
            f" {record['documents']} questions, {record['tokens']} tokens in"
            f" {record['forwards']} forwards{_whose(record)}"
        )

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The evaluations that a server answered, by file, with what the records say of it."""
        return {file: one["endpoint"] for file, one in self._read.items() if "endpoint" in one}

    def samples(self, file: str) -> list[dict[str, Any]]:
        """The questions behind an evaluation record, each with its generation and scores."""
        lines = self.records.read(str(Path(file).with_suffix(OF_SAMPLES))) or b""
        return [json.loads(line) for line in lines.splitlines()]

    def _parts(self, cell: CellLine) -> list[CellLine]:
        """The cell itself; of an average, the cells that it is over."""
        if cell.benchmark in self._keys:
            return [cell]
        row = (cell.file, cell.scale, cell.row, cell.model, cell.setting, cell.quantity)
        return [
            other
            for other in self.cells
            if (other.file, other.scale, other.row, other.model, other.setting, other.quantity)
            == row
            and other.benchmark != cell.benchmark
            and other.value != NOT_RUN
        ]

    def _derive(self, cell: CellLine) -> tuple[Any, list[str]]:
        """A cell's number from the evaluation records, and which these are.

        The number is the mean over the seeds of the model; None for a quantity that is not one
        score of a record (then the chain of hashes alone vouches for it).
        """
        against, _, setting = cell.against.partition("/")
        models = self.records.experiment.models
        others = seeds_of(against, models)
        derived = []
        for number, name in enumerate(seeds_of(cell.model, models)):
            other = f"{others[min(number, len(others) - 1)]}/{setting}"
            derived.append(self._derive_one(replace(cell, model=name, against=other)))
        values = [value for value, _ in derived]
        sources = [file for _, files in derived for file in files]
        return None if None in values else math.fsum(values) / len(values), sources

    def _derive_one(self, cell: CellLine) -> tuple[Any, list[str]]:
        file = self._evaluation(cell.model, cell.setting, cell.benchmark)
        record = self._read.get(file)
        if cell.quantity == "tokens_per_forward":
            counted = record and record["tokens_per_forward"]
            return counted and counted["value"], [file]
        if cell.quantity == "tokens_per_forward_as_counted":
            return record and (record["tokens"] + record["overrun"]) / record["forwards"], [file]
        if cell.quantity == "accuracy":
            return record and _percent(record), [file]
        if cell.quantity in ("delta_from_tau_1", "accuracy_difference"):
            model, setting = cell.model, self._one_token()
            if cell.quantity == "accuracy_difference":
                model, _, setting = cell.against.partition("/")
            before = self._evaluation(model, setting, cell.benchmark)
            reference = self._read.get(before)
            change = record and reference and _percent(record) - _percent(reference)
            return change, [file, before]
        return None, [file]

    def _evaluation(self, model: str, setting: str, title: str) -> str:
        return str(self._folder / model / setting / f"{self._keys[title]}.json")

    def _one_token(self) -> str:
        settings = self.records.experiment.settings.items()
        return next(name for name, setting in settings if setting.plain)

    def _of_evaluation(self, file: str) -> list[Problem]:
        """Whether a cell kept from an earlier run is what its stage would make now."""
        maker = self.records.maker(file)
        if maker is None:
            return self.records.unaccounted(file)
        if file not in self._read:
            return []  # missing or changed, as the job that made it will say
        record, evaluation = self.records.records[maker], self._read[file]
        where = (evaluation["setting"], evaluation["benchmark"])
        try:
            wanted = cell_spec(spec_of(record), record["inputs"], *where)
        except KeyError:
            return [Problem("stale", file, "is no cell of the job that lists it")]
        same = canonical_json(wanted) == canonical_json(evaluation["cell_spec"])
        return [] if same else [Problem("stale", file, "was made from another spec than its job's")]


def _read_cells(root: Path, file: str, table: str) -> list[CellLine]:
    names = list(CellLine.__dataclass_fields__)[2:]
    with open(root / file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [CellLine(file, table, *((row.get(name) or "") for name in names)) for row in rows]


def _whose(record: dict[str, Any]) -> str:
    """Who answered, if not the checkpoint that the chain of hashes leads to."""
    if "endpoint" not in record:
        return ""
    endpoint = record["endpoint"]
    servers = " and ".join(endpoint["answers_by_server"])
    return f", answered by {endpoint['model']} at {servers}, whose weights were not checked"


def _percent(record: dict[str, Any]) -> float:
    benchmark = record["cell_spec"]["benchmark"]
    return 100 * record["metrics"][benchmark["metric"]][benchmark["filter"]]["value"]


def agrees(text: str, value: float) -> bool:
    """Whether a table's cell says this number."""
    try:
        return math.isclose(float(text), value, rel_tol=0, abs_tol=1e-5)
    except ValueError:
        return False


# --- names --------------------------------------------------------------------------------------

Names = Callable[[CellLine], list[str]]
"""What a cell goes by; the first one is the one to tell people."""


def _row_names(cell: CellLine) -> list[str]:
    scaled = [f"{cell.scale} {name}" for name in (cell.row_name, cell.model)]
    return [*scaled, cell.row_name]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.=]+", text.lower()))


def _matches(wanted: str, cells: Iterable[CellLine], names: Names) -> list[tuple[int, CellLine]]:
    """Cells of which a name has all the words wanted, and how many words that name has.

    The beginning of a word will do: ``gsm`` is ``GSM8K``.
    """
    asked = _words(wanted)
    found = []
    for cell in cells:
        candidates = [words for words in map(_words, names(cell)) if _has(words, asked)]
        if candidates:
            found.append((min(len(words) for words in candidates), cell))
    return found


def _has(words: set[str], asked: set[str]) -> bool:
    return all(any(word.startswith(part) for word in words) for part in asked)


def _choose(what: str, wanted: str, cells: list[CellLine], names: Names) -> list[CellLine]:
    """The cells whose name fits best; all of them must have the same name, or the very one."""
    exact = [cell for cell in cells if wanted.lower() in map(str.lower, names(cell))]
    if exact and len({names(cell)[0] for cell in exact}) == 1:
        return exact
    matches = _matches(wanted, cells, names)
    best = min((length for length, _ in matches), default=0)
    chosen = [cell for length, cell in matches if length == best]
    fitting = list(dict.fromkeys(names(cell)[0] for cell in chosen))
    if len(fitting) == 1:
        return chosen
    known = list(dict.fromkeys(names(cell)[0] for cell in cells))
    similar = [
        name
        for name in sorted(known, key=partial(_unlikeness, wanted))
        if _unlikeness(wanted, name) < 0.5
    ]
    close = fitting or similar[:3] or known
    raise UserError(
        f"{'more than one' if fitting else 'no'} {what} fits {wanted!r};"
        f" did you mean {' or '.join(map(repr, close))}?"
    )


def _unlikeness(wanted: str, name: str) -> float:
    """0 if each word wanted is a word of the name, 1 if nothing is alike."""
    words = _words(name)
    likeness = [
        max(difflib.SequenceMatcher(None, part, word).ratio() for word in words)
        for part in _words(wanted)
    ]
    return 1 - sum(likeness) / len(likeness) if likeness else 1
