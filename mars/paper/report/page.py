"""One HTML page with everything an experiment found and where each part of it comes from.

The page is one file that opens without a network. It shows what is there: an artefact of the paper
that the experiment has not made is named and said to be not run.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from mars.errors import UserError
from mars.paper.claims.comparison import VERDICTS
from mars.paper.figures import generation
from mars.paper.report.addresses import QUESTIONS, address
from mars.paper.report.forest import forests
from mars.paper.specs import ReportSpec, Shown
from mars.paper.tables.html import as_html
from mars.paper.tables.table import NOT_RUN, read_record
from mars.paper.tables.tidy_csv import read_csv
from mars.provenance.files import read_json, write_atomic

TEMPLATE = Path(__file__).parent / "page.html.jinja"
COLOURS = Path(__file__).parent / "colours.css"  # of the page of questions too
SCREEN = 0.65  # width on the page of a pixel of an image: type as large as the page's own
SUFFIXES = ("pdf", "png", "svg", "html", "csv", "json", "md", "tex")
# Of claims and of comparisons: a sign beside the word, for eyes that miss colours.
SIGNS = {
    **{"holds": "✓", "agrees": "✓", "compatible": "≈", "undecided": "?", "does not hold": "✗"},
    **{"differs": "✗", "not comparable": "–", NOT_RUN: "○"},
}

JobRecord = Mapping[str, Any]
"""Provenance record of a job."""


@dataclass(frozen=True)
class ArtefactOrigin:
    """How a file came to be: the facts of its provenance record.

    Attributes:
        record: of the job, relative to the page.
        inputs: files that went in, each with the record of the job that made it (or None).
    """

    record: str
    stage: str
    command: str
    commit: str
    machine: str
    started: str
    seconds: float
    memory: float
    inputs: list[tuple[str, str | None]]


@dataclass(frozen=True)
class Section:
    """A table or figure on the page; without a body it was not run."""

    shown: Shown
    body: Markup | None = None
    files: list[str] = field(default_factory=list)
    made: ArtefactOrigin | None = None


def write_page(spec: ReportSpec, results: Path) -> Path:
    """Write the page of one experiment, ``report.html``, into its folder of results.

    Raises:
        UserError: nothing has been run yet.
    """
    made = records_by_output(results)
    sections = [_section(results, spec, shown, made) for shown in spec.artefacts]
    if not any(section.body for section in sections):
        raise UserError(f"{results} has no table and no figure yet; run the experiment first.")
    claims, comparison = results / "claims.json", results / "comparison.csv"
    compared = read_csv(comparison) if comparison.is_file() else []
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["number"] = _rounded
    environment.filters["code"] = _code
    environment.tests["a_number"] = lambda text: _number(text) is not None
    jobs = sorted({m.record: m for m in made.values()}.values(), key=lambda m: m.started)
    page = environment.from_string(TEMPLATE.read_text()).render(
        spec=spec,
        # Verdicts of an earlier version have no estimates.
        claims=[{"estimates": []} | claim for claim in _read(claims)],
        comparison=compared,
        counts=Counter((row["artefact"], row["verdict"]) for row in compared),
        chances=_sums((row["artefact"], float(row["chance"])) for row in compared),
        tables=[section for section in sections if section.shown.kind == "table"],
        figures=[section for section in sections if section.shown.kind == "figure"],
        jobs=jobs,
        colours=Markup(COLOURS.read_text()),
        questions=QUESTIONS,
        forests=forests,
        signs=SIGNS,
        compared_words=VERDICTS,
        example_style=Markup(generation.STYLE),
        machines=Counter(job.machine for job in jobs).most_common(),
        commits=Counter(job.commit for job in jobs).most_common(),
        files_of={name: _files(results, name) for name in ("claims", "comparison")},
        made_of={file.stem: made.get(str(file)) for file in (claims, comparison)},
    )
    write_atomic(results / "report.html", page)
    return results / "report.html"


# --- where things come from ---------------------------------------------------------------------


def records_by_output(results: Path) -> dict[str, ArtefactOrigin]:
    """How each file was made, by its name in the records (``results/<experiment>/...``).

    The page's own record of an earlier time is left out: the page is made anew.
    """
    records = {
        str(path.relative_to(results)): record
        for path in sorted((results / "provenance").rglob("*.json"))
        if "outputs" in (record := read_json(path)) and record["spec"]["stage"] != "report"
    }
    makers = {file: name for name, record in records.items() for file in record["outputs"]}
    return {file: _made(name, records[name], makers) for file, name in makers.items()}


def _made(name: str, record: JobRecord, makers: Mapping[str, str]) -> ArtefactOrigin:
    code, hardware = record["code"], record["hardware"]
    cores = f"{hardware['cores']} cores of {hardware['processor']}"
    command = shlex.split(record["command"])  # without its spec, which the record has in full
    return ArtefactOrigin(
        record=name,
        stage=record["spec"]["stage"],
        command=" ".join("…" if part.startswith("{") else part for part in command),
        commit=f"{(code['commit'] or 'no commit')[:10]}{' with edits' if code['dirty'] else ''}",
        machine=", ".join([*hardware["gpus"], cores]),
        started=record["started"],
        seconds=record["seconds"],
        memory=record["peak_memory_bytes"],
        inputs=[(file, makers.get(file)) for file in record["inputs"]],
    )


# --- what is shown ------------------------------------------------------------------------------


def _section(
    results: Path, spec: ReportSpec, shown: Shown, made: Mapping[str, ArtefactOrigin]
) -> Section:
    name, is_table = f"{shown.kind}s/{shown.name}", shown.kind == "table"
    file = results / f"{name}.{'jsonl' if is_table else 'png'}"
    if not file.is_file():
        return Section(shown)
    body = _table(file, spec, shown) if is_table else _drawing(file, shown.title)
    return Section(shown, body, _files(results, name), made.get(str(file)))


def _table(file: Path, spec: ReportSpec, shown: Shown) -> Markup:
    """A table whose numbers lead to their questions, where they have any."""
    table = read_record(file)
    if not shown.from_evaluations:
        return as_html(table, shown.title)
    return as_html(table, shown.title, lambda cell: address(cell, table.cells, spec.answered))


def _files(results: Path, name: str) -> list[str]:
    """The files of this name that are there."""
    names = (f"{name}.{suffix}" for suffix in SUFFIXES)
    return [name for name in names if (results / name).is_file()]


def _drawing(image: Path, title: str) -> Markup:
    """A figure as the page shows it: text, a drawing to hover over, or the image itself."""
    example, drawing = image.with_suffix(".json"), image.with_suffix(".svg")
    if example.is_file():
        return generation.fragment(read_json(example))
    if drawing.is_file():
        return _inline(drawing.read_text(), title)
    data = image.read_bytes()
    width = int.from_bytes(data[16:20])  # PNG's header: pixels, of which 200 are an inch
    return Markup('<img alt="{}: see the caption and the files below" width="{}" src="{}">').format(
        title, round(width * SCREEN), f"data:image/png;base64,{base64.b64encode(data).decode()}"
    )


def _inline(svg: str, title: str) -> Markup:
    """A drawing of matplotlib as part of the page: in its colours, and no name given twice."""
    look = rf' class="plot" role="img" aria-label="{escape(title)}" style="--width: \1pt"'
    changes = (
        (r"^.*?(?=<svg)|<metadata>.*?</metadata>|<clipPath.*?</clipPath>", ""),
        (r' clip-path="[^"]*"', ""),  # nothing is drawn beyond the axes
        # The only names in use are those of marks along the axes, which are hashes.
        (r' id="(?!m[0-9a-f]{10}")[^"]*"', ""),
        ("#000000", "currentColor"),
        ("#ffffff", "var(--page)"),
        (r' width="([\d.]+)pt" height="[\d.]+pt"', look),
    )
    for pattern, replacement in changes:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    return Markup('<div class="drawing">{}</div>').format(Markup(svg))


def _read(file: Path) -> list[dict[str, Any]]:
    """What is in a list of records; nothing, where it is not there."""
    found: list[dict[str, Any]] = read_json(file) if file.is_file() else []
    return found


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of the numbers of each name."""
    sums: dict[str, float] = {}
    for name, number in pairs:
        sums[name] = sums.get(name, 0.0) + number
    return sums


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rounded(text: str) -> str:
    """A number of a CSV in three or four digits; words as they are."""
    value = _number(text)
    return text if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _code(text: str) -> Markup:
    """Text whose words between backticks are code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
