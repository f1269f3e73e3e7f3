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
from mars.paper.figures import generation
from mars.paper.specs import ReportSpec, Shown
from mars.paper.tables.html import as_html
from mars.paper.tables.table import NOT_RUN, read_record
from mars.paper.tables.tidy_csv import Line, read_csv
from mars.provenance.files import read_json, write_atomic

TEMPLATE = Path(__file__).parent / "page.html.jinja"
SCREEN = 0.65  # width on the page of a pixel of an image: type as large as the page's own
VERDICTS = {  # of claims and of comparisons: a sign beside the word, for eyes that miss colours
    "holds": "✓",
    "agrees": "✓",
    "within noise": "≈",
    "undecided": "?",
    "does not hold": "✗",
    "differs": "✗",
    "not comparable": "–",
    NOT_RUN: "○",
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

    name: str
    kind: str
    title: str
    caption: str = ""
    body: Markup | None = None
    files: list[str] = field(default_factory=list)
    made: ArtefactOrigin | None = None


def write_page(spec: ReportSpec, results: Path) -> Path:
    """Write the page of one experiment, ``report.html``, into its folder of results.

    Raises:
        UserError: nothing has been run yet.
    """
    made = records_by_output(results)
    sections = [_section(results, shown, made) for shown in spec.artefacts]
    if not any(section.body for section in sections):
        raise UserError(f"{results} has no table and no figure yet; run the experiment first.")
    claims_file, comparison_file = results / "claims.json", results / "comparison.csv"
    comparison = read_csv(comparison_file) if comparison_file.is_file() else []
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = _rounded
    environment.tests["a_number"] = lambda text: _number(text) is not None
    jobs = sorted({m.record: m for m in made.values()}.values(), key=lambda m: m.started)
    page = environment.from_string(TEMPLATE.read_text()).render(
        spec=spec,
        claims=read_json(claims_file) if claims_file.is_file() else [],
        comparison=comparison,
        agreement=_agreement(comparison),
        tables=[section for section in sections if section.kind == "table"],
        figures=[section for section in sections if section.kind == "figure"],
        sections=[section.name for section in sections],
        jobs=jobs,
        verdict_signs=VERDICTS,
        example_style=Markup(generation.STYLE),
        machines=_distinct(job.machine for job in jobs),
        commits=_distinct(job.commit for job in jobs),
        files_of={
            name: _existing(results, (f"{name}.{suffix}" for suffix in ("json", "csv", "md")))
            for name in ("claims", "comparison")
        },
        made_of={
            "claims": made.get(str(claims_file)),
            "comparison": made.get(str(comparison_file)),
        },
    )
    write_atomic(results / "report.html", page)
    return results / "report.html"


# --- where things come from ---------------------------------------------------------------------


def records_by_output(results: Path) -> dict[str, ArtefactOrigin]:
    """How each file was made, by its name in the records (``results/<experiment>/...``).

    The page's own record of an earlier time is left out: the page is made anew.
    """
    paths = sorted((results / "provenance").rglob("*.json"))
    records = {str(path.relative_to(results)): read_json(path) for path in paths}
    records = {
        name: record
        for name, record in records.items()
        if "outputs" in record and record["spec"]["stage"] != "report"
    }
    makers = {file: name for name, record in records.items() for file in record["outputs"]}
    return {file: _made(name, records[name], makers) for file, name in makers.items()}


def _made(name: str, record: JobRecord, makers: Mapping[str, str]) -> ArtefactOrigin:
    code = record["code"]
    return ArtefactOrigin(
        record=name,
        stage=record["spec"]["stage"],
        command=_short(record["command"]),
        commit=f"{(code['commit'] or 'no commit')[:10]}{' with edits' if code['dirty'] else ''}",
        machine=_machine(record["hardware"]),
        started=record["started"],
        seconds=record["seconds"],
        memory=record["peak_memory_bytes"],
        inputs=[(file, makers.get(file)) for file in record["inputs"]],
    )


def _short(command: str) -> str:
    """The command without its spec, which the record has in full."""
    return " ".join("…" if part.startswith("{") else part for part in shlex.split(command))


def _machine(hardware: Mapping[str, Any]) -> str:
    cores, processor = hardware["cores"], hardware["processor"]
    return ", ".join([*hardware["gpus"], f"{cores} cores of {processor}"])


def _existing(results: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (results / name).is_file()]


def _distinct(values: Iterable[str]) -> list[tuple[str, int]]:
    """The values and how many jobs have each."""
    return Counter(values).most_common()


# --- what is shown ------------------------------------------------------------------------------

SUFFIXES = ("pdf", "png", "svg", "html", "csv", "json", "md", "tex")


def _section(results: Path, shown: Shown, made: Mapping[str, ArtefactOrigin]) -> Section:
    folder = results / f"{shown.kind}s"
    file = folder / f"{shown.name}.{'jsonl' if shown.kind == 'table' else 'png'}"
    if not file.is_file():
        return Section(shown.name, shown.kind, shown.title)
    is_table = shown.kind == "table"
    body = as_html(read_record(file), shown.title) if is_table else _drawing(file, shown.title)
    files = (f"{folder.name}/{shown.name}.{suffix}" for suffix in SUFFIXES)
    return Section(
        name=shown.name,
        kind=shown.kind,
        title=shown.title,
        caption=shown.caption,
        body=body,
        files=_existing(results, files),
        made=made.get(str(file)),
    )


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


def _agreement(comparison: Iterable[Line]) -> dict[str, Counter[str]]:
    """How many cells of each artefact got which verdict."""
    counts: dict[str, Counter[str]] = {}
    for row in comparison:
        counts.setdefault(row["artefact"], Counter())[row["verdict"]] += 1
    return counts


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rounded(text: str) -> str:
    """A number of a CSV in three or four digits; words as they are."""
    value = _number(text)
    return text if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
