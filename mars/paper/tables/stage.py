"""What the tables see of an experiment, and how they are written."""

from __future__ import annotations

from pathlib import Path

from mars.config.experiment import Experiment, Setting
from mars.errors import UserError
from mars.paper.evaluations import Evaluations, of_rows
from mars.paper.specs import (
    EvaluationsBehind,
    Measurement,
    TableSpec,
    identity,
    paper_scales,
)
from mars.paper.tables.evaluated import EvaluatedTable
from mars.paper.tables.files import write
from mars.paper.tables.findings import all_rows, findings
from mars.paper.tables.hyperparameters import TrainedSpec, hyperparameters
from mars.paper.tables.wall_clock import TimedModel, TimedSpec, table5, table6
from mars.provenance.files import read_json
from mars.provenance.stage import Job, Stage


def write_evaluated(declared: EvaluatedTable, spec: TableSpec, job: Job) -> list[Path]:
    """Write a table of evaluations."""
    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return write(declared.table(spec, evaluations), job.output)


def compared_with_code(experiment: Experiment) -> TableSpec:
    """What the rows need that are compared with the released code."""
    return of_rows(all_rows(), experiment)


def write_findings(spec: TableSpec, job: Job) -> list[Path]:
    """Write what published numbers may owe to the released code."""
    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return write(findings(spec, evaluations), job.output)


FINDINGS = Stage(
    "findings",
    TableSpec,
    compared_with_code,
    write_findings,
    EvaluationsBehind(compared_with_code),
    rule="table",
)


def trained(experiment: Experiment) -> TrainedSpec:
    """What Table 7 needs beside the records of the training jobs."""
    names = experiment.trained_models()
    return TrainedSpec(
        data=experiment.data,
        scales=paper_scales(experiment),
        models={name: identity(experiment, name) for name in names},
        max_new_tokens=experiment.evaluation.max_new_tokens,
    )


def training_records(experiment: Experiment) -> list[str]:
    """Those of every model that is trained here."""
    models = {name: experiment.models[name] for name in experiment.trained_models()}
    rules = {n: "pretrain" if model.method == "base" else "train" for n, model in models.items()}
    return [f"provenance/{rule}/{name}.json" for name, rule in rules.items()]


def write_hyperparameters(spec: TrainedSpec, job: Job) -> list[Path]:
    """Write Table 7, hyper-parameters and cost of training."""
    records = {file.stem: read_json(file) for file in job.inputs.of("trainings")}
    return write(hyperparameters(spec, records), job.output)


TABLE_7 = Stage(
    "table7", TrainedSpec, trained, write_hyperparameters, training_records, rule="table"
)


def timed_by_batch(experiment: Experiment) -> TimedSpec:
    """What Table 5 needs beside what was timed."""
    return _timed(experiment, "wall_clock")


def timed_in_pairs(experiment: Experiment) -> TimedSpec:
    """What Table 6 needs beside what was timed."""
    return _timed(experiment, "speculative")


def _timed(experiment: Experiment, part: str) -> TimedSpec:
    speed = experiment.speed
    if speed is None or getattr(speed, part) is None:
        raise UserError(f"{experiment.experiment} times nothing here: it has no `speed.{part}`.")
    names = [name for key, name in speed.models().items() if key.startswith(f"{part}.")]
    models = {name: experiment.models[name] for name in names}
    scales = experiment.scales
    return TimedSpec(
        data=experiment.data,
        scales=paper_scales(experiment, (model.scale for model in models.values())),
        benchmark=experiment.benchmarks[speed.benchmark].title,
        tau=speed.tau,
        setting=_setting_name(experiment, speed.tau),
        one_token=_setting_name(experiment, None),
        models={
            name: TimedModel(
                stands_for=scales[model.scale].stands_for,
                method=model.method,
                block_size=model.block_size,
            )
            for name, model in models.items()
        },
        pairs=tuple(speed.speculative.pairs) if part == "speculative" and speed.speculative else (),
    )


def _setting_name(experiment: Experiment, tau: float | None) -> str | None:
    """The experiment's name for decoding with this tau and nothing else."""
    wanted = Setting.model_validate({"threshold": tau})
    return next((name for name, item in experiment.settings.items() if item == wanted), None)


def write_table5(spec: TimedSpec, job: Job) -> list[Path]:
    """Write Table 5, wall clock."""
    return write(table5(spec, job.inputs.folder("speed")), job.output)


def write_table6(spec: TimedSpec, job: Job) -> list[Path]:
    """Write Table 6, with speculative decoding."""
    return write(table6(spec, job.inputs.folder("speed")), job.output)


TABLE_5 = Stage(
    "table5",
    TimedSpec,
    timed_by_batch,
    write_table5,
    Measurement("wall_clock"),
    rule="table",
)
TABLE_6 = Stage(
    "table6",
    TimedSpec,
    timed_in_pairs,
    write_table6,
    Measurement("speculative"),
    rule="table",
)
