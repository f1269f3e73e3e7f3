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
    program: Annotated[Literal["vllm", "hub"], typer.Option("--for", help="who will load it")],
    target: Annotated[
        Path | None, typer.Option(help="vllm: checkpoint that it will draft for; default: itself")
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(help="vllm: K; default: B of a MARS checkpoint, else 4")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="hub: its experiment, then overlays; default: config/<experiment>.yaml"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="default: exports/<name>")] = None,
) -> None:
    """Write a checkpoint as vLLM takes it, or the hub with its scores. See docs/serving.md."""
    folder = output or Path("exports") / checkpoint.resolve().name
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or give another --output.")
    if program == "hub":
        _for_hub(checkpoint.resolve(), config, folder)
    else:
        _for_vllm(checkpoint, target, draft_tokens, folder)


def _for_hub(checkpoint: Path, config: list[Path] | None, folder: Path) -> None:
    from mars.config.experiment import load_experiment
    from mars.publishing.model_card import export_for_hub

    results = checkpoint.parent.parent
    if (checkpoint.parent.name, results.parent.name) != ("checkpoints", "results"):
        raise UserError(
            f"{checkpoint} is no checkpoint of an experiment, so it has no scores here; give one "
            "of results/<experiment>/checkpoints/."
        )
    experiment = load_experiment(*(config or [Path(f"config/{results.name}.yaml")]))
    said = export_for_hub(experiment, checkpoint.name, results, folder)
    print("\n".join([f"{folder} is written, with its scores in README.md.", *said]))
    print(f"To publish it: hf upload <owner>/{checkpoint.name} {folder}")


def _for_vllm(
    checkpoint: Path, target: Path | None, draft_tokens: int | None, folder: Path
) -> None:
    from mars.checkpoints.for_vllm import export_for_vllm, serve_command

    made = export_for_vllm(checkpoint, folder, target)
    print(f"{folder} is written. Beside the copied files:")
    for change in made.changes or ["Nothing had to change."]:
        print(f"- {change}")
    drafts = made if target is not None or made.block_size is not None else None
    print(f"\n{serve_command(target or folder, drafts, draft_tokens)}\n")
    print("Ask the server for temperature 0: it then answers as without a draft, greedily.")
