"""The verbs with which the workflow, or a person, runs a stage: `spec` says what, `run` does it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from mars.cli.common import Configs, app
from mars.config.experiment import Endpoint, Strict, TrainingOptions, load_experiment
from mars.errors import UserError
from mars.provenance.record import run_recorded
from mars.provenance.stage import Inputs, Job, JobSpec
from mars.stages import stage_named


@app.command()
def spec(
    config: Configs,
    stage: Annotated[str, typer.Argument(help="e.g. train")],
    target: Annotated[list[str] | None, typer.Argument(help="e.g. model=mars-b4-small")] = None,
) -> None:
    """Print the spec of one job: its configuration, code and packages in one JSON string."""
    values = {key: value for key, _, value in (item.partition("=") for item in target or [])}
    print(stage_named(stage).planned(load_experiment(*config), values).canonical())


@app.command()
def run(
    spec: Annotated[str, typer.Option(help="the job's spec: JSON, or a file that holds it")],
    output: Annotated[Path, typer.Option(help="manifest of the folder to make, or first file")],
    record: Annotated[Path, typer.Option(help="where to write the provenance record")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="manifests, records and tables, in any order")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="e.g. sharded=true of a training, compile=true of an evaluation; no result changes"
        ),
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="of an evaluation: its server, e.g. url=http://...")
    ] = None,
) -> None:
    """Run one job of the workflow, as its spec says."""
    planned = read_spec(spec)
    stage = stage_named(planned.stage)
    if stage.online and "MARS_HUB_MIRROR" not in os.environ:
        os.environ.pop("HF_HUB_OFFLINE", None)
    options = read_options(TrainingOptions, "--option", option or [])
    server = read_options(Endpoint, "--endpoint", endpoint) if endpoint else None
    job = Job(planned, Inputs(tuple(inputs or ())), output.parent, options, server)
    run_recorded(stage, job, record)


Options = TypeVar("Options", bound=Strict)


def read_options(kind: type[Options], flag: str, given: list[str]) -> Options:
    """What was given with ``flag`` as ``key=value``; the defaults for the others.

    Raises:
        UserError: no such option, or no such value.
    """
    try:
        return kind.model_validate(dict(item.partition("=")[::2] for item in given))
    except ValidationError as error:
        known = ", ".join(kind.model_fields)
        raise UserError(
            f"{flag} {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg'].lower()}; "
            f"options are {known}, each with =value."
        ) from error


def read_spec(text: str) -> JobSpec:
    """The spec given on the command line.

    Raises:
        UserError: no such file, or no spec.
    """
    if not text.lstrip().startswith("{"):
        if not Path(text).is_file():
            raise UserError(f"--spec names the file {text}, which does not exist; see `mars spec`.")
        text = Path(text).read_text()
    try:
        return JobSpec.model_validate(json.loads(text))
    except (json.JSONDecodeError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"--spec is no spec ({problem}); take it from `mars spec`.") from error
