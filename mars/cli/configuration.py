"""Verbs about an experiment: its configuration, what it needs from the hub, the GPUs of a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import Configs, app
from mars.config.experiment import Experiment, load_experiment
from mars.config.reference import json_schema, key_reference
from mars.errors import UserError
from mars.machine.cpus import warn_of_slow_bfloat16
from mars.machine.gpus import run_with_gpus, visible_gpus


@app.command()
def check(config: Annotated[list[Path], typer.Argument(help="experiment, then overlays")]) -> None:
    """Check a configuration with its overlays: silent if good, else one sentence."""

    experiment = load_experiment(*config)
    if visible_gpus():
        return
    for key in bfloat16_keys(experiment):
        warn_of_slow_bfloat16(key)


def bfloat16_keys(experiment: Experiment) -> list[str]:
    """The keys of a configuration that ask for bfloat16 where something is computed."""
    asking = {
        "training.precision": any(
            experiment.training_of(name).precision == "bfloat16"
            for name in experiment.trained_models()
        ),
        "evaluation.precision": experiment.evaluation.precision == "bfloat16",
    }
    return [key for key, asks in asking.items() if asks]


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option(help="the key reference of config/README.md")] = False,
) -> None:
    """Print the JSON schema of an experiment (config/schema.json)."""

    print(key_reference() if markdown else json_schema(), end="")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def with_gpus(
    count: Annotated[int, typer.Argument(help="GPUs, at most; 0: leave them as they are")],
    verb: Annotated[list[str], typer.Argument(help="e.g. train, with its options")],
) -> None:
    """Run another verb with GPUs that no other job has; training starts a process on each."""

    run_with_gpus(verb, count)
    app(verb)  # there is no GPU to be given


@app.command()
def fetch(
    config: Configs,
    to: Annotated[Path | None, typer.Option(help="the mirror; default: $MARS_HUB_MIRROR")] = None,
) -> None:
    """Fetch all that an experiment needs from the hub into one folder; goes on after a kill."""
    from mars.data.mirror import fetch_splitter, fill, wanted_by

    folder = to or os.environ.get("MARS_HUB_MIRROR")
    if not folder:
        raise UserError("give --to <folder>, or set MARS_HUB_MIRROR to it.")
    mirror = Path(folder).resolve()
    experiment = load_experiment(*config)
    problems = fill(mirror, wanted_by(experiment))
    counts_sentences = any(b.task.startswith("ifeval") for b in experiment.benchmarks.values())
    if counts_sentences and (warning := fetch_splitter(mirror)):
        print(f"Note: {warning}")
    if problems:
        raise UserError("; ".join(["not everything could be fetched", *problems]))
    print(f"{mirror} holds all of {experiment.experiment}: export MARS_HUB_MIRROR={mirror}")
