"""The verbs that run stages, one for each rule of the workflow, made from the stages themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from mars.cli.common import Configs, app
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.provenance.record import run_recorded
from mars.provenance.stage import Inputs, Job, JobSpec
from mars.stages import STAGES, stage_named


@app.command()
def spec(
    config: Configs,
    stage: Annotated[str, typer.Argument(help="e.g. train")],
    target: Annotated[list[str] | None, typer.Argument(help="e.g. model=mars-b4-small")] = None,
) -> None:
    """Print the spec of one job: its configuration, code and packages in one JSON string."""
    values = {key: value for key, _, value in (item.partition("=") for item in target or [])}
    print(stage_named(stage).planned(load_experiment(*config), values).canonical())


def read_spec(text: str, verb: str) -> JobSpec:
    """The spec given on the command line, checked to be one that the verb runs.

    Raises:
        UserError: no such file, no spec, or the spec of another verb's stage.
    """
    if not text.lstrip().startswith("{"):
        if not Path(text).is_file():
            raise UserError(f"--spec names the file {text}, which does not exist; see `mars spec`.")
        text = Path(text).read_text()
    try:
        found = JobSpec.model_validate(json.loads(text))
    except (json.JSONDecodeError, ValidationError) as error:
        raise UserError(f"--spec is no spec ({error}); take it from `mars spec`.") from error
    if stage_named(found.stage).verb != verb:
        runs = ", ".join(name for name, stage in STAGES.items() if stage.verb == verb)
        raise UserError(f"--spec is of the stage {found.stage!r}; `mars {verb}` runs {runs}.")
    return found


def _verb(name: str) -> Callable[..., None]:
    def run(
        spec: Annotated[str, typer.Option(help="the job's spec: JSON, or a file that holds it")],
        output: Annotated[Path, typer.Option(help="manifest of the folder to make, or first file")],
        record: Annotated[Path, typer.Option(help="where to write the provenance record")],
        inputs: Annotated[
            list[Path] | None, typer.Argument(help="manifests, records and tables, in any order")
        ] = None,
        checkpoint_minutes: Annotated[float, typer.Option(help="time between saves")] = 15,
    ) -> None:
        planned = read_spec(spec, name)
        job = Job(planned, Inputs(tuple(inputs or ())), output.parent, checkpoint_minutes)
        run_recorded(stage_named(planned.stage), job, record)

    return run


for _name in dict.fromkeys(stage.verb for stage in STAGES.values()):
    _runs = [stage for stage in STAGES.values() if stage.verb == _name]
    _help = _runs[0].summary if len(_runs) == 1 else f"Run {', '.join(s.name for s in _runs)}."
    app.command(_name.replace("_", "-"), help=_help, rich_help_panel="Stages of the workflow")(
        _verb(_name)
    )
