"""The verb that decodes one prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import app, read_tau
from mars.decoding.methods import STREAMING_METHODS


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="what the user says")],
    model: Annotated[Path, typer.Option(help="any checkpoint folder")],
    tau: Annotated[str, typer.Option(help="confidence threshold, or 'none': one token")] = "0.95",
    block_size: Annotated[int | None, typer.Option(help="default: as trained")] = None,
    max_new_tokens: int = 256,
    method: Annotated[str, typer.Option(help=", ".join(STREAMING_METHODS))] = "cursor",
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
