"""What an audit found, for people (lines of text) and for machines (plain values)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mars.audit.cells import NONE, NOT_RUN, CellLine, Tables
from mars.audit.compare import WORDS as COMPARED
from mars.audit.packed import EVIDENCE, SAMPLES
from mars.audit.record_graph import WORDS, Link, Problem, RecordGraph, worst
from mars.provenance.manifest import NAME as MANIFEST

Report = tuple[str, list[str], dict[str, Any]]
"""The one word, the lines, the plain values."""


def audit_cell(tables: Tables, cell: CellLine, samples: bool = False) -> Report:
    """One cell: its number, the evaluations behind it, the jobs behind those."""
    audited = tables.audit(cell)
    lines = [f"{cell.title}: {_number(cell)}"]
    lines += [f"  from {tables.describe(file)}" for file in audited.evaluations]
    lines += [f"  {line}" for line in _lines(audited.problems)]
    lines += ["", *_chain(audited.chain), ""]
    questions = {file: tables.samples(file) for file in audited.evaluations} if samples else {}
    for file, rows in questions.items():
        lines += [file, *map(_question, rows), ""]
    plain = {
        "word": audited.word,
        "cell": asdict(cell),
        "problems": list(map(asdict, audited.problems)),
        "evaluations": audited.evaluations,
        "endpoints": _only(tables.endpoints(), audited.evaluations),
        "chain": [{**asdict(link), "word": link.word} for link in audited.chain],
        **({"samples": questions} if samples else {}),
    }
    lines += _unpacked(tables.records)
    verdict = _verdict(audited.word, audited.chain, audited.evaluations)
    return audited.word, [*lines, verdict], plain


def audit_all(tables: Tables) -> Report:
    """Every cell of every table, every figure, and all jobs behind them."""
    records = tables.records
    audited = [tables.audit(cell) for cell in tables.cells]
    others = {link.record: link for name in records.final() for link in records.chain(name)}
    problems = [*records.broken, *tables.missing]
    problems += [found for link in others.values() for found in link.problems]
    problems += [found for one in audited for found in one.problems]
    word = worst(problems)
    lines, counts = [], {}
    for table in tables.names:
        cells = [one for one in audited if one.cell.table == table]
        words = Counter(NOT_RUN if one.cell.value == NOT_RUN else one.word for one in cells)
        counts[table] = dict(words)
        each = ", ".join(f"{words[key]} {key}" for key in (*WORDS, NOT_RUN) if words[key])
        lines.append(f"{table}: {len(cells)} cells: {each or 'none'}")
    jobs = Counter(link.word for link in others.values())
    each = ", ".join(f"{jobs[key]} {key}" for key in WORDS if jobs[key])
    lines.append(f"{len(others)} jobs behind all results: {each or 'none'}")
    if endpoints := tables.endpoints():
        answered = f"{len(endpoints)} evaluation{'s' * (len(endpoints) > 1)} answered by a server"
        lines.append(f"{answered}, whose weights were not checked")
    lines += _unpacked(records)
    for link in others.values():
        if link.problems:
            lines += [f"{link.word:<8}  {link.job}"]
            lines += [f"{'':<10}{line}" for line in _lines(link.problems)]
    rest = [*records.broken, *tables.missing, *(f for one in audited for f in one.problems)]
    lines += _lines(rest)
    plain = {
        "word": word,
        "cells": counts,
        "endpoints": endpoints,
        "unpacked": sorted(records.unpacked),
        "problems": [asdict(finding) for finding in dict.fromkeys(problems)],
    }
    return word, [*lines, _verdict(word, others.values())], plain


def _unpacked(records: RecordGraph) -> list[str]:
    """That some files are not here, but packed, if so."""
    if not (number := len(records.unpacked)):
        return []
    some = "1 file is not here and was" if number == 1 else f"{number} files are not here and were"
    return [f"{some} hashed as {SAMPLES} and {EVIDENCE} give them back, byte for byte"]


def _only(found: dict[str, Any], files: Iterable[str]) -> dict[str, Any]:
    """The entries of these files."""
    return {file: found[file] for file in files if file in found}


def _verdict(word: str, chain: Iterable[Link], evaluations: Iterable[str] = ()) -> str:
    """The word, with what it rests on: accepted changes of code, and jobs that were run again."""
    links = list(chain)
    accepted = dict.fromkeys(link.accepted for link in links if link.accepted)
    if word != WORDS[0]:
        return word
    because = f" (accepted: {'; '.join(accepted)})" if accepted else ""
    return f"{word}{because}{_replayed(links, evaluations)}"


def _replayed(chain: list[Link], evaluations: Iterable[str]) -> str:
    """How many jobs were run again to the same end, and when the last of them was."""
    files = list(map(Path, evaluations))
    dates = [date for link in chain if (date := _came_out_again(link, files))]
    if not dates:
        return ""
    if len(dates) == len(chain):
        return f", replayed on {max(dates)}"
    return f", {len(dates)} of {len(chain)} jobs replayed, the last on {max(dates)}"


def _came_out_again(link: Link, evaluations: list[Path]) -> str | None:
    """When a job was last run again to the same end: all of it, or these evaluations of it."""
    good = [one for one in link.replayed if one.word in COMPARED[:2]]
    dates = [one.date for one in good if not one.cells]
    cells = {cell: one.date for one in good for cell in one.cells}
    wanted = [
        f"{file.parent.name}/{file.stem}"
        for file in evaluations
        if str(file.parents[1] / MANIFEST) in link.outputs
    ]
    if not dates and wanted and cells.keys() >= set(wanted):
        dates = [cells[cell] for cell in wanted]
    return max(dates, default=None)


def _chain(chain: list[Link]) -> list[str]:
    """One line per job, what is wrong with it below."""
    width = max((len(link.job) for link in chain), default=0)
    lines = []
    for link in chain:
        first, digest = next(iter(link.outputs.items()))
        source = "".join(f", {key} {value}" for key, value in link.source.items())
        files = f"{link.files} {'file' if link.files == 1 else 'files'}"
        facts = f"{files}; {link.started[:16]}, {link.commit}{source}"
        if link.accepted:
            facts += f"; code accepted: {link.accepted}"
        for one in link.replayed:
            part = f" ({', '.join(one.cells)})" if one.cells else ""
            facts += f"; replayed on {one.date}{part}: {one.word}"
        lines.append(f"{link.word:<8}  {link.job:<{width}}  {first} {digest[:10]} ({facts})")
        lines += [f"{'':<10}{line}" for line in _lines(link.problems)]
    return lines


def _lines(problems: list[Problem]) -> list[str]:
    """Findings as lines, each once."""
    return list(dict.fromkeys(f"{finding.file}: {finding.text}" for finding in problems))


def _number(cell: CellLine) -> str:
    if cell.value == NOT_RUN:
        return NOT_RUN
    if cell.n == NONE:
        return cell.value
    return f"{cell.value} (standard error {cell.stderr}, {cell.n} questions)"


def _question(sample: dict[str, Any]) -> str:
    """One question: which, the answer wanted, what the model wrote, the scores."""
    scores = {f"{m} ({f})": v for f, of in sample["scores"].items() for m, v in of.items()}
    written = ", ".join(f"{name} {value}" for name, value in scores.items())
    return (
        f"  {sample['task']} {sample['document']} (prompt {sample['prompt_sha256'][:10]}),"
        f" target {sample['target']!r}: {sample.get('generation')!r} -> {written}"
    )
