"""One HTML page with everything an experiment found and where each part of it comes from.

The page is one file that opens without a network. It shows what is there: an artefact of the paper
that the experiment has not made is named and said to be not run.
"""

from __future__ import annotations

import base64
import csv
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mars.errors import UserError
from mars.paper.figures import acceptance, generation, heat_map, live_tau, pareto
from mars.paper.report.hover_plots import acceptance_plots, pareto_plots
from mars.paper.report.markdown_tables import body_of, tables_as_html
from mars.provenance.files import read_json, write_atomic

NOT_RUN = "not run"
# In the order of the page: name of the files, title, caption (a table's Markdown has its own).
TABLES = {
    "table2": "Table 2: one-token mode",
    "table3": "Table 3: SFT loss and block size",
    "table4": "Table 4: multi-token mode",
    "table5": "Table 5: wall clock",
    "table6": "Table 6: with speculative decoding",
    "table7": "Table 7: hyper-parameters and cost",
    "table8": "Table 8: threshold sweep",
    "table9": "Table 9: Jacobi decoding",
    "findings": "The authors' released code: numbers both ways",
}
FIGURES = {
    "figure1": ("Figure 1: tokens accepted together", generation.CAPTION),
    "figure3": ("Figure 3: speed and quality", pareto.CAPTION),
    "figure6": ("Figure 6: acceptance metrics", acceptance.CAPTION),
    "heat_map": ("Block cache: heat map", heat_map.CAPTION),
    "live_tau": ("tau as a live knob", live_tau.CAPTION),
    "training_curves": (
        "Training losses",
        "Loss of every training stage over its optimiser steps, smoothed; thin: single steps.",
    ),
}
SCREEN = 0.65  # width on the page of a pixel of an image: type as large as the page's own
VERDICT_FILES = ("claims.json", "comparison.csv")
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


@dataclass(frozen=True)
class Made:
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
    title: str
    caption: str = ""
    body: Markup | None = None
    files: list[str] = field(default_factory=list)
    made: Made | None = None


def write_report(spec: Mapping[str, Any], results: Path, output: Path) -> None:
    """Write the page of one experiment.

    Args:
        spec: ``experiment`` (its name), ``description`` and ``scales`` in the shape of the
            configuration.
        results: folder of the experiment.
        output: the page; links on it are relative to ``results``, so it belongs there.
    """
    made = records_by_output(results)
    tables = [_table(results, name, title, made) for name, title in TABLES.items()]
    figures = [_figure(results, name, *words, made) for name, words in FIGURES.items()]
    claims_file, comparison_file = (results / name for name in VERDICT_FILES)
    comparison = _rows(comparison_file)
    environment = Environment(
        loader=PackageLoader("mars.paper.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = _rounded
    environment.tests["a_number"] = lambda text: _number(text) is not None
    jobs = sorted({m.record: m for m in made.values()}.values(), key=lambda m: m.started)
    page = environment.get_template("page.html.jinja").render(
        spec=spec,
        claims=read_json(claims_file) if claims_file.is_file() else [],
        comparison=comparison,
        agreement=_agreement(comparison),
        tables=tables,
        figures=figures,
        sections=[section.name for section in (*tables, *figures)],
        jobs=jobs,
        verdict_signs=VERDICTS,
        example_style=Markup(generation.STYLE),
        machines=_distinct(job.machine for job in jobs),
        commits=_distinct(job.commit for job in jobs),
        files_of={
            "claims": _existing(results, ("claims.json", "claims.md")),
            "comparison": _existing(results, ("comparison.csv", "comparison.md")),
        },
        made_of={
            "claims": made.get(str(claims_file)),
            "comparison": made.get(str(comparison_file)),
        },
    )
    write_atomic(output, page)


def shown_files(results: Path) -> list[Path]:
    """The files whose content is on the page of an experiment.

    Raises:
        UserError: nothing has been run yet.
    """
    tables = (f"tables/{name}.md" for name in TABLES)
    figures = (f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "csv", "json"))
    found = _existing(results, (*tables, *figures))
    if not found:
        raise UserError(f"{results} has no table and no figure yet; run the experiment first.")
    return [results / file for file in (*_existing(results, VERDICT_FILES), *found)]


# --- where things come from ---------------------------------------------------------------------


def records_by_output(results: Path) -> dict[str, Made]:
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


def _made(name: str, record: Mapping[str, Any], makers: Mapping[str, str]) -> Made:
    code = record["code"]
    return Made(
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


def _table(results: Path, name: str, title: str, made: Mapping[str, Made]) -> Section:
    files = _existing(results, (f"tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")))
    markdown = results / f"tables/{name}.md"
    if not markdown.is_file():
        return Section(name, title)
    text = body_of(markdown.read_text())
    return Section(
        name=name,
        title=title,
        body=tables_as_html(text, title),
        files=files,
        made=made.get(str(markdown)),
    )


def _figure(
    results: Path, name: str, title: str, caption: str, made: Mapping[str, Made]
) -> Section:
    suffixes = ("pdf", "png", "html", "csv", "json")
    files = _existing(results, (f"figures/{name}.{suffix}" for suffix in suffixes))
    image = results / f"figures/{name}.png"
    if not image.is_file():
        return Section(name, title)
    return Section(
        name=name,
        title=title,
        caption=caption,
        body=_drawing(name, image, title),
        files=files,
        made=made.get(str(image)),
    )


def _drawing(name: str, image: Path, title: str) -> Markup:
    """A figure as the page shows it: text, plots to hover over, or the image itself."""
    points = image.with_suffix(".csv")
    if name == "figure3" and points.is_file():
        return pareto_plots(points)
    if name == "figure6" and points.is_file():
        return acceptance_plots(points)
    example = image.with_suffix(".json")
    if name == "figure1" and example.is_file():
        return generation.fragment(read_json(example))
    data = image.read_bytes()
    width = int.from_bytes(data[16:20])  # PNG's header: pixels, of which 200 are an inch
    return Markup('<img alt="{}: see the caption and the files below" width="{}" src="{}">').format(
        title, round(width * SCREEN), f"data:image/png;base64,{base64.b64encode(data).decode()}"
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def _agreement(comparison: list[dict[str, str]]) -> dict[str, Counter[str]]:
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
