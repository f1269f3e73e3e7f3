"""Verbs that decode: one prompt, or the benchmarks."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import Folder, Record, Spec, app, read_spec, read_tau
from mars.provenance.files import sha256_file
from mars.provenance.manifest import write_manifest
from mars.provenance.record import recorded
from mars.stages import cell_spec


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="what the user says")],
    model: Annotated[Path, typer.Option(help="any checkpoint folder")],
    tau: Annotated[str, typer.Option(help="confidence threshold, or 'none': one token")] = "0.95",
    block_size: Annotated[int | None, typer.Option(help="default: as trained")] = None,
    max_new_tokens: int = 256,
    method: Annotated[str, typer.Option(help="cursor, autoregressive or jacobi")] = "cursor",
) -> None:
    """Answer a prompt; tokens accepted in one forward are shaded alike (the paper's Figure 1)."""
    from mars.decoding.generate import generate_text

    pieces = generate_text(
        model,
        prompt,
        block_size=block_size,
        threshold=read_tau(tau),
        max_new_tokens=max_new_tokens,
        method=method,
        shaded=sys.stdout.isatty(),
    )
    for piece in pieces:
        print(piece, end="", flush=True)


@app.command()
def evaluate(
    spec: Spec,
    checkpoint: Folder,
    output: Folder,
    record: Record,
    data: Annotated[list[Path], typer.Argument(help="manifests of the data sets")],
) -> None:
    """Evaluate one model on every benchmark under each of its settings, through lm-eval."""
    from mars.data.hub import hub_root
    from mars.evaluation.evaluate import evaluate as run

    plan = read_spec(spec, "evaluate")
    config = plan["config"]
    inputs = [checkpoint / "manifest.json", *data]
    made_from = {str(path): sha256_file(path) for path in inputs}

    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        tempfile.TemporaryDirectory() as work,
    ):
        run(
            checkpoint=checkpoint,
            **config,
            hub=hub_root(data[0]),
            output=output,
            work=Path(work),
            cell_spec=partial(cell_spec, plan, made_from),
        )
        write_manifest(output)
