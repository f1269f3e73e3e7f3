"""The tables: what they show of an experiment, what they are made from, and by what.

A table of evaluations is declared here and nowhere else: its rows and how they are laid out in
:data:`EVALUATED`, and an entry of :data:`TABLES`.
"""

from __future__ import annotations

from pathlib import Path

from mars.config.experiment import Experiment, Setting
from mars.errors import UserError
from mars.paper import published
from mars.paper.evaluations import Evaluations
from mars.paper.specs import (
    Artefact,
    EvaluationsBehind,
    Measurement,
    TableSpec,
    identities,
    paper_scales,
    reported_models,
)
from mars.paper.tables import evaluated
from mars.paper.tables.evaluated import EvaluatedTable
from mars.paper.tables.files import write
from mars.paper.tables.findings import FINDINGS
from mars.paper.tables.hyperparameters import CAPTION, TrainedSpec, hyperparameters
from mars.paper.tables.wall_clock import (
    CAPTION_5,
    CAPTION_6,
    PairsSpec,
    TimedSpec,
    table5,
    table6,
)
from mars.provenance.files import read_json
from mars.provenance.stage import Job, Stage

# --- tables of evaluations ----------------------------------------------------------------------

EVALUATED: dict[str, EvaluatedTable] = {
    table.name: table
    for table in (
        EvaluatedTable(
            "table2",
            "One-token mode: accuracy (%), one token per forward.",
            published.table2,
            beyond=(
                (evaluated.is_ar, evaluated.with_penalty),
                (evaluated.is_block_diffusion, evaluated.without_right_shift),
            ),
        ),
        EvaluatedTable(
            "table3",
            "SFT loss and block size in one-token mode: accuracy (%).",
            published.table3,
            beyond=((evaluated.without_sft_loss, evaluated.with_inverse_t),),
        ),
        EvaluatedTable(
            "table4",
            "Multi-token mode: accuracy (%), its change from one-token mode (points), and tokens "
            "per forward.",
            published.table4,
            lines=("scale", "row", "quantity"),
            beyond=tuple((evaluated.any_row, vary) for vary in evaluated.MULTI_TOKEN),
        ),
        EvaluatedTable(
            "table8",
            "Threshold sweep: accuracy (%) and tokens per forward by tau and block size B.",
            published.table8,
            lines=("tau",),
            columns=("block_size", "quantity"),
            blocks=("scale", "sft_loss", "benchmark"),
        ),
        EvaluatedTable(
            "table9",
            "Jacobi decoding of the AR model compared with MARS: accuracy (%), tokens per forward.",
            published.table9,
            lines=("row", "quantity"),
            beyond=((evaluated.is_ar, evaluated.with_penalty),),
        ),
        FINDINGS,
    )
}


def write_evaluated(spec: TableSpec, job: Job) -> list[Path]:
    """One for all, so that an edit of any table's rows makes them all anew, which takes seconds."""
    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return write(EVALUATED[job.spec.stage].table(spec, evaluations), job.output)


class OfEvaluations(Artefact):
    """A table of evaluations; its rows say what it needs."""

    def __init__(self, name: str, title: str, compared: int | None = None):
        table = EVALUATED[name]
        inputs = EvaluationsBehind(table.resolve)
        stage = Stage(name, TableSpec, table.resolve, write_evaluated, inputs, "table")
        super().__init__(stage, title, table.caption, compared=compared, from_evaluations=True)


# --- Table 7 ------------------------------------------------------------------------------------


def trained(experiment: Experiment) -> TrainedSpec:
    """What Table 7 needs beside the records of the training jobs."""
    return TrainedSpec(
        data=experiment.data,
        scales=paper_scales(experiment),
        models=identities(experiment, reported_models(experiment)),
        max_new_tokens=experiment.evaluation.max_new_tokens,
    )


def training_records(experiment: Experiment) -> list[str]:
    """Those of every model that is reported."""
    models = {name: experiment.models[name] for name in reported_models(experiment)}
    rules = {n: "pretrain" if model.method == "base" else "train" for n, model in models.items()}
    return [f"provenance/{rule}/{name}.json" for name, rule in rules.items()]


def write_hyperparameters(spec: TrainedSpec, job: Job) -> list[Path]:
    records = {file.stem: read_json(file) for file in job.inputs.of("trainings")}
    return write(hyperparameters(spec, records), job.output)


# --- Tables 5 and 6 -----------------------------------------------------------------------------


def timed_by_batch(experiment: Experiment) -> TimedSpec:
    """What Table 5 needs beside what was timed."""
    return _timed(experiment, "wall_clock")


def timed_in_pairs(experiment: Experiment) -> PairsSpec:
    """What Table 6 needs beside what was timed."""
    spec = _timed(experiment, "speculative", "vllm")
    further = experiment.speed.vllm if experiment.speed else None
    return PairsSpec(**dict(spec), in_vllm=tuple(further.pairs) if further else ())


def what_pairs_were_timed(experiment: Experiment) -> list[str]:
    """The measurements of pairs: in this project, and in vLLM where the experiment says so."""
    further = ["vllm"] if experiment.speed and experiment.speed.vllm else []
    return [f"speed/{part}/manifest.json" for part in ("speculative", *further)]


def _timed(experiment: Experiment, part: str, *further: str) -> TimedSpec:
    speed = experiment.speed
    if speed is None or getattr(speed, part) is None:
        raise UserError(f"{experiment.experiment} times nothing here: it has no `speed.{part}`.")
    parts = (part, *further)
    names = [name for key, name in speed.models().items() if key.split(".")[0] in parts]
    models = identities(experiment, names)
    return TimedSpec(
        data=experiment.data,
        scales=paper_scales(experiment, (model.scale for model in models.values())),
        benchmark=experiment.benchmarks[speed.benchmark].title,
        tau=speed.tau,
        setting=_setting_name(experiment, speed.tau),
        one_token=_setting_name(experiment, None),
        models=models,
        pairs=tuple(speed.speculative.pairs) if part == "speculative" and speed.speculative else (),
    )


def _setting_name(experiment: Experiment, tau: float | None) -> str | None:
    """The experiment's name for decoding with this tau and nothing else."""
    wanted = Setting.model_validate({"threshold": tau})
    return next((name for name, item in experiment.settings.items() if item == wanted), None)


def write_table5(spec: TimedSpec, job: Job) -> list[Path]:
    return write(table5(spec, job.inputs.folder("speed")), job.output)


def write_table6(spec: PairsSpec, job: Job) -> list[Path]:
    folders = job.inputs.folders("speed")
    return write(table6(spec, folders["speculative"], folders.get("vllm")), job.output)


# --- the registry: no call but of classes, for a call would count as code of every table ---------

OF_BATCHES = Measurement("wall_clock")
TABLES = (
    OfEvaluations("table2", "Table 2: one-token mode", compared=2),
    OfEvaluations("table3", "Table 3: SFT loss and block size", compared=3),
    OfEvaluations("table4", "Table 4: multi-token mode", compared=4),
    Artefact(
        Stage("table5", TimedSpec, timed_by_batch, write_table5, OF_BATCHES, "table"),
        "Table 5: wall clock",
        CAPTION_5,
        needs="speed.wall_clock",
        compared=5,
    ),
    Artefact(
        Stage("table6", PairsSpec, timed_in_pairs, write_table6, what_pairs_were_timed, "table"),
        "Table 6: with speculative decoding",
        CAPTION_6,
        needs="speed.speculative",
        compared=6,
    ),
    Artefact(
        Stage("table7", TrainedSpec, trained, write_hyperparameters, training_records, "table"),
        "Table 7: hyper-parameters and cost",
        CAPTION,
    ),
    OfEvaluations("table8", "Table 8: threshold sweep", compared=8),
    OfEvaluations("table9", "Table 9: Jacobi decoding", compared=9),
    OfEvaluations("findings", "The authors' released code: results both ways"),
)
