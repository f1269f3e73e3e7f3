"""Verbs about an experiment's configuration, and the GPUs a job gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import Configs, app
from mars.config.experiment import Experiment, json_schema, load_experiment
from mars.machine.cpus import warn_of_slow_bfloat16
from mars.machine.gpus import run_with_gpus, visible_gpus
from mars.stages import spec as stage_spec
from mars.stages import trained_models


@app.command()
def spec(
    config: Configs,
    stage: Annotated[str, typer.Argument(help="e.g. train")],
    target: Annotated[list[str] | None, typer.Argument(help="e.g. model=mars-b4-small")] = None,
) -> None:
    """Print the spec of one stage: its configuration, code and lock in one JSON string."""

    pairs = [item.partition("=") for item in target or []]
    values = {key: int(value) if value.isdigit() else value for key, _, value in pairs}
    print(stage_spec(load_experiment(*config), stage, **values))


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
            for name in trained_models(experiment)
        ),
        "evaluation.precision": experiment.evaluation.precision == "bfloat16",
    }
    return [key for key, asks in asking.items() if asks]


@app.command()
def schema() -> None:
    """Print the JSON schema of an experiment (config/schema.json)."""

    print(json_schema(), end="")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def with_gpus(
    count: Annotated[int, typer.Argument(help="GPUs, at most; 0: leave them as they are")],
    verb: Annotated[list[str], typer.Argument(help="e.g. train, with its options")],
    sharded: Annotated[bool, typer.Option(help="train with FSDP instead of DDP")] = False,
) -> None:
    """Run another verb with GPUs that no other job has; training starts a process on each."""

    run_with_gpus(verb, count, sharded)
    app(verb)  # there is no GPU to be given
