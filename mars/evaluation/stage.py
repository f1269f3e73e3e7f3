"""The stages that ask a model questions: "evaluate", all of its settings and benchmarks in one
process, and "probe", what each place of its decoding window predicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from mars.config.experiment import Benchmark, Evaluation, Experiment, Setting
from mars.data.stage import data_manifests
from mars.decoding.methods import METHODS
from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_file, sha256_text
from mars.provenance.stage import Job, JobSpec, Spec, Stage

TASK_FILES = (".yaml", ".yml")


class EvaluationSpec(Spec):
    """How one model is evaluated."""

    method: str | None  # of decoding, where the model's training says it
    block_size: int | None  # B that the model was trained for; None decodes autoregressively
    right_shift: bool = True  # of block diffusion, as it was trained
    cells: dict[str, list[str]]  # the benchmarks of each setting
    benchmarks: dict[str, Benchmark]
    task_files: dict[
        str, str
    ]  # for each benchmark that is defined in a file: the hash of its definition
    settings: dict[str, Setting]
    evaluation: Evaluation
    generated_data: bool  # whether the benchmarks are this project's miniatures
    # What a server calls the model whose one-token mode it answers; absent where there is none.
    endpoint: str | None = Field(None, exclude_if=lambda model: model is None)


def resolve(experiment: Experiment, model: str) -> EvaluationSpec:
    """What the evaluation of a model depends on."""
    entry, cells = experiment.models[model], experiment.evaluations_of(model)
    used = sorted({benchmark for benchmarks in cells.values() for benchmark in benchmarks})
    benchmarks = {name: experiment.benchmarks[name] for name in used}
    tasks = {name: Path(item.task) for name, item in benchmarks.items()}
    server = experiment.evaluation.endpoint.get(model)
    return EvaluationSpec(
        # A model that is trained for a way of decoding has its name.
        method=entry.method if entry.method in METHODS else None,
        block_size=entry.block_size,
        right_shift=entry.right_shift,
        cells=cells,
        benchmarks=benchmarks,
        task_files={n: _hash_of_task(t) for n, t in tasks.items() if t.suffix in TASK_FILES},
        settings={name: experiment.settings[name] for name in cells},
        evaluation=experiment.evaluation,
        generated_data=experiment.generated,
        endpoint=(server.model or model) if server else None,
    )


def _hash_of_task(task: Path) -> str:
    """Hash of a task's file and of what may belong to it in its folder."""
    suffixes = (".yaml", ".yml", ".py", ".jinja")
    files = (file for file in task.parent.glob("*") if file.suffix in suffixes)
    return fingerprint(task.parent, files)


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files below ``folder``; folders do not count."""
    found = sorted(file for file in files if file.is_file())
    named = [[str(file.relative_to(folder)), sha256_file(file)] for file in found]
    return sha256_text(canonical_json(named))


def inputs(experiment: Experiment, model: str) -> list[str]:
    """What the stage reads, by path inside the folder of results."""
    names = {name for names in experiment.evaluations_of(model).values() for name in names}
    used = (item.dataset for name, item in experiment.benchmarks.items() if name in names)
    return [f"checkpoints/{model}/manifest.json", *data_manifests(experiment, used)]


SHARED_BY_CELLS = ("method", "block_size", "right_shift", "evaluation", "generated_data")


def cell_spec(
    job: JobSpec, inputs: Mapping[str, str], setting: str, benchmark: str
) -> dict[str, Any]:
    """What one cell of an evaluation depends on: a change elsewhere in the spec keeps the cell.

    ``job`` is the whole spec of the evaluation, of any version of this code; ``inputs`` the sha256
    of its input files, by path.

    Raises:
        KeyError: the evaluation has no such cell.
    """
    config = job.config
    one_token = Setting.model_validate(config["settings"][setting]).plain
    sent = ("endpoint",) if "endpoint" in config and one_token else ()
    return {
        **{"model": job.target["model"], "code": job.code, "packages": job.packages},
        **{key: config[key] for key in (*SHARED_BY_CELLS, *sent) if key in config},
        "setting": config["settings"][setting],
        "benchmark": config["benchmarks"][benchmark],
        "task_file": config["task_files"].get(benchmark),
        "inputs": dict(inputs),
    }


def run(spec: EvaluationSpec, job: Job) -> None:
    """Evaluate what is not there yet: cells that an earlier run finished are kept."""
    from mars.evaluation.evaluate import evaluate

    if spec.endpoint is not None and job.endpoint is None:
        raise UserError(
            f"a server answers these questions as {spec.endpoint}, and none is given; add "
            "--endpoint url=http://..., as the workflow does from `evaluation.endpoint`."
        )

    # By checkpoint: another one may have the same spec, and so the same folder for its work.
    answered = sha256_text(canonical_json(job.inputs.sha256))[:12]
    evaluate(
        spec,
        checkpoint=job.inputs.folder("checkpoints"),
        hub=job.inputs.hub,
        output=job.output,
        cell_spec=lambda *cell: cell_spec(job.spec, job.inputs.sha256, *cell),
        endpoint=job.endpoint,
        work=job.work / answered,
        compiled=job.options.compile,
    )


# What lm-eval imports for a Hugging Face model and for IFEval, and does not require.
PACKAGES = ("accelerate", "immutabledict")
EVALUATE = Stage("evaluate", EvaluationSpec, resolve, run, inputs, packages=PACKAGES)


# --- probe --------------------------------------------------------------------------------------


class ProbeSpec(Spec):
    """Whose windows are looked at, and along the answers to which questions."""

    block_size: int
    benchmark: Benchmark
    task_file: str | None  # the hash of the benchmark's definition, if it is defined in a file
    evaluation: Evaluation
    generated_data: bool


def resolve_probe(experiment: Experiment, model: str) -> ProbeSpec:
    """What the probe of a model depends on.

    Raises:
        UserError: the experiment does not probe this model.
    """
    probe, block_size = experiment.probe, experiment.models[model].block_size
    if probe is None or model not in probe.models or block_size is None:
        raise UserError(f"{experiment.experiment} does not probe {model}; see `probe.models`.")
    benchmark = experiment.benchmarks[probe.benchmark]
    task = Path(benchmark.task)
    return ProbeSpec(
        block_size=block_size,
        benchmark=benchmark.model_copy(update={"limit": probe.questions}),
        task_file=_hash_of_task(task) if task.suffix in TASK_FILES else None,
        evaluation=experiment.evaluation,
        generated_data=experiment.generated,
    )


def probe_inputs(experiment: Experiment, model: str) -> list[str]:
    """The checkpoint and the questions, by path inside the folder of results."""
    used = [experiment.benchmarks[experiment.probe.benchmark].dataset] if experiment.probe else []
    return [f"checkpoints/{model}/manifest.json", *data_manifests(experiment, used)]


def run_probe(spec: ProbeSpec, job: Job) -> None:
    """Write what each place of the window predicts along the model's own answers."""
    from mars.evaluation.probe import probe

    checkpoint = job.inputs.folder("checkpoints")
    probe(spec, checkpoint=checkpoint, hub=job.inputs.hub, output=job.output)


PROBE = Stage("probe", ProbeSpec, resolve_probe, run_probe, probe_inputs, packages=PACKAGES)
