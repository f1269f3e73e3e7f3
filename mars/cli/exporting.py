"""The verb that writes a checkpoint for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mars.cli.common import app
from mars.errors import UserError


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint folder")],
    program: Annotated[Literal["vllm"], typer.Option("--for", help="who will load it")],
    target: Annotated[
        Path | None, typer.Option(help="checkpoint that it will draft for; default: itself")
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(help="K; default: B of a MARS checkpoint, else 4")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="default: exports/<name>")] = None,
) -> None:
    """Write a checkpoint as vLLM takes it, and print how to serve it. See docs/serving.md."""
    from mars.checkpoints.for_vllm import export_for_vllm, serve_command

    folder = output or Path("exports") / checkpoint.resolve().name
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or give another --output.")
    made = export_for_vllm(checkpoint, folder, target)
    print(f"{folder} is written. Beside the copied files:")
    for change in made.changes or ["Nothing had to change."]:
        print(f"- {change}")
    drafts = made if target is not None or made.block_size is not None else None
    print(f"\n{serve_command(target or folder, drafts, draft_tokens)}\n")
    print("Ask the server for temperature 0: it then answers as without a draft, greedily.")
