"""What an audit found, for people (lines of text) and for machines (plain values)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from mars.audit.audit import WORDS, Finding, Link, worst
from mars.audit.cells import NONE, NOT_RUN, Cell, Tables

Report = tuple[str, list[str], dict[str, Any]]
"""The one word, the lines, the plain values."""


def audit_cell(tables: Tables, cell: Cell, samples: bool = False) -> Report:
    """One cell: its number, the evaluations behind it, the jobs behind those."""
    audited = tables.audit(cell)
    lines = [f"{cell.title}: {_number(cell)}"]
    lines += [f"  from {tables.describe(file)}" for file in audited.evaluations]
    lines += [f"  {line}" for line in _problems(audited.findings)]
    lines += ["", *_chain(audited.chain), ""]
    questions = {file: tables.samples(file) for file in audited.evaluations} if samples else {}
    for file, rows in questions.items():
        lines += [file, *map(_question, rows), ""]
    plain = {
        "word": audited.word,
        "cell": asdict(cell),
        "findings": list(map(asdict, audited.findings)),
        "evaluations": audited.evaluations,
        "chain": [{**asdict(link), "word": link.word} for link in audited.chain],
        **({"samples": questions} if samples else {}),
    }
    return audited.word, [*lines, audited.word], plain


def audit_all(tables: Tables) -> Report:
    """Every cell of every table, every figure, and all jobs behind them."""
    records = tables.records
    audited = [tables.audit(cell) for cell in tables.cells]
    others = {link.record: link for name in records.final() for link in records.chain(name)}
    findings = [*records.broken, *tables.missing]
    findings += [found for link in others.values() for found in link.findings]
    findings += [found for one in audited for found in one.findings]
    word = worst(findings)
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
    for link in others.values():
        if link.findings:
            lines += [f"{link.word:<8}  {link.job}"]
            lines += [f"{'':<10}{line}" for line in _problems(link.findings)]
    rest = [*records.broken, *tables.missing, *(f for one in audited for f in one.findings)]
    lines += _problems(rest)
    plain = {
        "word": word,
        "cells": counts,
        "findings": [asdict(finding) for finding in dict.fromkeys(findings)],
    }
    return word, [*lines, word], plain


def _chain(chain: list[Link]) -> list[str]:
    """One line per job, what is wrong with it below."""
    width = max((len(link.job) for link in chain), default=0)
    lines = []
    for link in chain:
        first, digest = next(iter(link.outputs.items()))
        source = "".join(f", {key} {value}" for key, value in link.source.items())
        files = f"{link.files} {'file' if link.files == 1 else 'files'}"
        facts = f"{files}; {link.started[:16]}, {link.commit}{source}"
        lines.append(f"{link.word:<8}  {link.job:<{width}}  {first} {digest[:10]} ({facts})")
        lines += [f"{'':<10}{line}" for line in _problems(link.findings)]
    return lines


def _problems(findings: list[Finding]) -> list[str]:
    """Findings as lines, each once."""
    return list(dict.fromkeys(f"{finding.file}: {finding.text}" for finding in findings))


def _number(cell: Cell) -> str:
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
