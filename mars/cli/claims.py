"""Verbs about the claims of the paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import TINY, Configs, Root, app
from mars.config.experiment import load_experiment


@app.command()
def claim(
    number: Annotated[int, typer.Argument(help="1 to 10, as in docs/comparison.md")],
    files: Annotated[
        bool, typer.Option("--files", help="print what it needs instead, for the workflow")
    ] = False,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Judge one claim of the paper from what is there, without what the others need."""
    from mars.publishing.claims_sheet import files_behind, in_words, judge

    experiment = load_experiment(*config)
    if files:
        print(*files_behind(number, experiment), sep="\n")
    else:
        print(*in_words(judge(number, experiment, root)), sep="\n")


@app.command()
def claims(
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    config: Configs = TINY,
    root: Root = Path("."),
) -> None:
    """Make tables and verdicts again from the packed answers; compare them with the committed."""
    from mars.audit.recompute import SAME, recompute

    found = recompute(root / "results" / load_experiment(*config).experiment)
    plain = json.dumps(found.plain(), indent=2, ensure_ascii=False)
    print(plain if as_json else "\n".join(found.lines()))
    raise typer.Exit(found.word != SAME)
