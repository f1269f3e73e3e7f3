"""The verdicts on the claims, as JSON, as Markdown and as a short table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mars.paper.claims.claims import CLAIMS
from mars.paper.claims.results import Judged, Results
from mars.paper.claims.significance import FEWEST, FLOOR
from mars.paper.claims.verdicts import FAILS, HOLDS, holm
from mars.paper.tables.files import pipe_table
from mars.paper.tables.notes import scale_notes
from mars.paper.tables.table import NONE, NOT_RUN
from mars.provenance.files import read_json, write_atomic, write_json

ALPHA = 0.05
OF_ONE = "of this training"
ONE_TRAINING = "Where a model was trained once, a verdict on its method speaks of this training."
NO_CAVEAT = "These are the paper's models."


ClaimRecord = Mapping[str, Any]
"""A claim with its verdict, as in ``claims.json``."""


def write_claims(results: Results, output: Path) -> list[Path]:
    """Judge every claim and write ``claims.json`` and ``claims.md`` into the folder ``output``."""
    caveat = " ".join(scale_notes(results.evaluations.spec.scales)) or NO_CAVEAT
    judged = [claim.judge(results) for claim in CLAIMS]
    together = _together(judged)
    claims = [
        {
            "number": number,
            "claim": claim.claim,
            "verdict": found.verdict,
            "scope": _scope(found.trainings),
            "evidence": found.evidence,
            "artefact": claim.artefact,
            "caveat": caveat,
            "rule": claim.rule,
            "p": found.p,
            "p_holm": together.get(number),
            "estimates": [estimate.plain() for estimate in found.estimates],
            "tests": [test.plain() for test in found.tests],
        }
        for number, (claim, found) in enumerate(zip(CLAIMS, judged, strict=True), 1)
    ]
    files = [output / "claims.json", output / "claims.md"]
    write_json(files[0], claims)
    write_atomic(files[1], _as_markdown(claims))
    return files


def _together(judged: Sequence[Judged]) -> dict[int, float]:
    """p-values of the claims that chance plays a part in, corrected for their number."""
    p_values = {number: one.p for number, one in enumerate(judged, 1) if one.p is not None}
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _scope(trainings: int | None) -> str:
    """Of what a verdict speaks: of the method as far as several trainings show it, or of one."""
    if trainings is None:
        return ""
    return OF_ONE if trainings == 1 else f"over {trainings} trainings"


def _spoken(claim: ClaimRecord) -> str:
    """The verdict with what it speaks of."""
    known = claim["verdict"] != NOT_RUN and claim["scope"]
    return f"**{claim['verdict']}**" + (f" {claim['scope']}" if known else "")


def _as_markdown(claims: Sequence[ClaimRecord]) -> str:
    heads = ["#", "Claim", "Verdict", "p", "p (Holm)", "Evidence", "Numbers"]
    verdicts = [heads, ["---:", "---", "---", "---:", "---:", "---", "---"]]
    verdicts += [
        [str(c["number"]), c["claim"], _spoken(c), *_sureness(c), c["evidence"], c["artefact"]]
        for c in claims
    ]
    heads = ["Claim", "Difference", "Benchmark", "Questions", "Points", "95 %"]
    tests = [[*heads, "Gained", "Lost", "p", "p (Holm)"], ["---:", "---", "---", *["---:"] * 7]]
    tests += [line for claim in claims for test in claim["tests"] for line in _test(claim, test)]
    rules = "\n".join(f"{claim['number']}. {claim['rule']}" for claim in claims)
    parts = [
        "# The claims of the paper",
        claims[0]["caveat"],
        pipe_table(verdicts),
        _all_together(claims),
        "## Rules",
        "Intervals are 95 % confidence intervals over questions and, where a model was trained "
        "several times, over trainings; a verdict from one training speaks of that training. "
        "Differences are paired over the same questions. "
        f"With fewer than {FEWEST} questions in a benchmark, a difference decides nothing. With "
        f"less than {FLOOR:g} % accuracy to lose, it cannot show that there is no loss. Both are "
        '"undecided".',
        rules,
        "## Paired tests",
        "Points: of all, the average over the benchmarks, each of which counts the same; below it "
        "each benchmark by itself. Gained and lost: questions that only the first (or only the "
        "second) run has right; p: that a benchmark's difference is 0, by McNemar's exact test, or "
        "by the draws where there are no such counts; Holm: corrected for the benchmarks.",
        pipe_table(tests) if len(tests) > 2 else "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _sureness(claim: ClaimRecord) -> list[str]:
    """The p-values of a claim that is decided."""
    decided = claim["p"] is not None and claim["verdict"] in (HOLDS, FAILS)
    return [f"{claim[key]:.2g}" if decided else NONE for key in ("p", "p_holm")]


def _all_together(claims: Sequence[ClaimRecord]) -> str:
    """Which verdicts stand when all are to be right together."""
    tested = [claim for claim in claims if claim["p"] is not None]
    decided = [claim for claim in tested if claim["verdict"] in (HOLDS, FAILS)]
    stand = [str(claim["number"]) for claim in decided if claim["p_holm"] <= ALPHA]
    fall = [str(claim["number"]) for claim in decided if claim["p_holm"] > ALPHA]
    if not decided:
        return ""
    text = (
        f"p: how probable numbers like ours would be if the verdict were wrong. Each part of a "
        f"verdict is at 95 % by itself. By Holm's method, over the {len(tested)} claims that "
        f"chance plays a part in, these stand at 95 % all together: {', '.join(stand) or 'none'}"
    )
    return text + (f"; these do not: {', '.join(fall)}." if fall else ".")


def _test(claim: ClaimRecord, test: Mapping[str, Any]) -> list[list[str]]:
    """A test's average over benchmarks, and each benchmark below it."""
    lines = [[str(claim["number"]), test["what"], "all", *_points(test), *[""] * 4]]
    for part in test["benchmarks"]:
        counts = (NONE if part[key] is None else str(part[key]) for key in ("gained", "lost"))
        sure = (f"{part[key]:.2g}" for key in ("p", "p_holm"))
        lines.append(["", "", part["title"], *_points(part), *counts, *sure])
    return lines


def _points(test: Mapping[str, Any]) -> list[str]:
    points = test["difference"]
    between = f"{points['lower']:+.1f} to {points['upper']:+.1f}"
    return [str(test["questions"]), f"{points['value']:+.1f}", between]


def short(claims: Path, width: int) -> str:
    """Each claim of ``claims.json`` with its verdict, in lines of at most ``width`` characters."""
    lines = ["The claims of the paper", "-" * width]
    for claim in read_json(claims):
        head = f"{claim['number']:>2}  {claim['verdict']:<14}"
        indent = " " * len(head)
        wrapped = textwrap.wrap(claim["claim"], width - len(head))
        lines += [f"{head}{wrapped[0]}", *(f"{indent}{line}" for line in wrapped[1:])]
    lines.append("-" * width)
    if any(claim["scope"] == OF_ONE for claim in read_json(claims)):
        lines += textwrap.wrap(ONE_TRAINING, width)
    return "\n".join(lines)
