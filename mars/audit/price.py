"""What a run on GPUs would cost: GPU-hours, wall time, disk and download, before anything is spent.

Every number says what it rests on:

* measured: the records of this experiment, where its training ran on a GPU;
* published: H200-hours of the paper's Table 7, of the authors' code, whose batches are padded; ours
  are packed, so these hours are rather too many;
* estimated: the assumptions below, which nobody has measured.

The model is crude on purpose: it is to tell a day from a month, and a disk that is too small. It
knows the paper's models and data; other experiments are planned by their records alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mars.audit.plan import PlannedJob
from mars.config.experiment import (
    Benchmark,
    Experiment,
    HubBase,
    HubData,
    LiveTau,
    Speculative,
    Speed,
    WallClock,
)
from mars.provenance.files import readable_size
from mars.provenance.record import read_record

# Parameters of the paper's base models (from the config.json of each).
PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
}
WEIGHT_BYTES = 2  # a finished checkpoint is in bfloat16, as its base is
TRAINING_BYTES = 12  # of a checkpoint to resume from: float32 weights and two moments of AdamW
CHECKPOINTS = 3  # of these at a time: two that are kept, and the one being written
DEVICE_BYTES = 16  # on the GPUs while training: the same and the gradients, without activations

# The paper's setting, for which its hours hold.
PAPER_BASES = {"0.5B": "Qwen/Qwen2.5-0.5B-Instruct", "7B": "Qwen/Qwen2.5-7B-Instruct"}
PAPER_DATA = "allenai/Dolci-Instruct-SFT"
PAPER_EPOCHS = 5

# Assumed: new tokens per second of an H200 that decodes many sequences side by side, and every
# answer as long as it may be.
TOKENS_PER_SECOND = {"0.5B": 8000, "7B": 2500}
# Assumed: one step of a batch whose speed is measured, one token each. 256 questions then take 1310
# seconds over the batch size; AR at 7B, in the paper's Table 5: 1100 (batch 4) to 1470 (batch 16).
STEP_SECONDS = 0.02
# Questions of lm-eval's tasks, and the parts among which a limit holds.
QUESTIONS = {
    "ifeval": (541, 1),
    "bbh": (6511, 27),
    "mmlu_pro": (12032, 14),
    "gpqa_main_cot_zeroshot": (448, 1),
    "gsm8k_cot": (1319, 1),
    "humaneval_instruct": (164, 1),
}
SAMPLE_BYTES = 3000  # of one answer in the records

# Assumed: examples of an instruction set without a limit, and bytes of one as downloaded.
EXAMPLES, EXAMPLE_BYTES, TOKEN_BYTES = 2_000_000, 3000, 4
BENCHMARK_BYTES = 20_000_000  # at most, of any of the six benchmarks


@dataclass(frozen=True)
class Price:
    """Cost of one job.

    Attributes:
        gpu_hours: hours times GPUs.
        widest: GPUs that the job can use.
        disk: bytes that stay.
        scratch: further bytes while it runs.
        download: bytes from the hub.
        basis: what ``gpu_hours`` rest on; bytes are always estimated.
    """

    gpu_hours: float = 0.0
    widest: int = 1
    disk: float = 0.0
    scratch: float = 0.0
    download: float = 0.0
    basis: str = "estimated"

    def wall_hours(self, gpus: int) -> float:
        """Hours on so many GPUs, if they share the work without loss."""
        return self.gpu_hours / min(gpus, self.widest)


FREE = Price(basis="-")  # minutes of a CPU

Hours = Mapping[str, Mapping[str, float]]
"""The paper's H200-hours, by scale and then ``ar_sft`` and ``mars``."""


def price(job: PlannedJob, experiment: Experiment, published: Hours) -> Price | None:
    """What one job would cost; None if nothing here can tell."""
    match job.stage:
        case "train":
            return _training(job, experiment, published)
        case "pretrain":
            return None
        case "evaluate":
            return _evaluation(job.target["model"], experiment)
        case "import_base" | "import_released":
            parameters = _parameters(experiment, experiment.models[job.target["model"]].scale)
            size = parameters and WEIGHT_BYTES * parameters
            return Price(disk=size, download=size) if size else None
        case "fetch_dataset":
            data = experiment.data
            trained_on = isinstance(data, HubData) and job.target["repository"] == data.dataset
            size = EXAMPLES * EXAMPLE_BYTES if trained_on else BENCHMARK_BYTES
            return Price(disk=size, download=size)
        case "tokenize":
            limit = experiment.data.limit if isinstance(experiment.data, HubData) else None
            length = experiment.training.max_length
            return Price(disk=(limit or EXAMPLES) * length * TOKEN_BYTES)
        case measured if measured.startswith("measure_") and experiment.speed is not None:
            steps = _steps(experiment.speed, measured.removeprefix("measure_"))
            return Price(gpu_hours=steps * STEP_SECONDS / 3600)
    return FREE


def price_table(
    planned: Iterable[PlannedJob], experiment: Experiment, published: Hours
) -> list[str]:
    """A table of the stages that would run, by where their hours are from; offline.

    Nothing is returned if the price of any job is not known.
    """
    groups: dict[tuple[str, str], list[Price]] = defaultdict(list)
    for job in planned:
        if job.runs:
            one = price(job, experiment, published)
            if one is None:
                return []
            groups["other" if one is FREE else job.stage, one.basis].append(one)
    everything = [one for members in groups.values() for one in members]
    rows: list[tuple[str, ...]] = [HEAD]
    times = {key: [_wall(members, gpus) for gpus in (1, 8)] for key, members in groups.items()}
    for stage, basis in sorted(groups, key=lambda key: ORDER.index(key[0])):
        rows.append((stage, *_row(groups[stage, basis], times[stage, basis]), basis))
    totals = [sum(column) for column in zip(*times.values(), strict=True)]
    rows.append(("all", *_row(everything, totals), ""))
    scratch = max((one.scratch for one in everything), default=0.0)
    return [*_aligned(rows), "", *_notes(scratch, experiment)]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < index < len(row) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _notes(scratch: float, experiment: Experiment) -> list[str]:
    rates = ", ".join(f"{rate} ({scale})" for scale, rate in TOKENS_PER_SECOND.items())
    notes = [
        "published: H200-hours from the paper's Table 7, for the authors' code, which pads;",
        "           ours are packed, so these hours are probably too many",
        f"estimated: evaluation at {rates} new tokens per second and GPU, all answers as long as",
        f"           may be; steps of {STEP_SECONDS} s where speed is measured; other trainings in",
        "           proportion to the published ones; disk, download",
        "measured:  records of this experiment, on the GPUs that they name",
        "Wall time: stages one after the other, GPUs share the work without loss.",
    ]
    if scratch:
        notes.append(f"While the largest model is trained: {_size(scratch)} more disk (estimated).")
    sizes = {name: _parameters(experiment, name) for name in experiment.resources.training}
    memory = [f"{_size(DEVICE_BYTES * n)} ({name})" for name, n in sizes.items() if n]
    if scratch and memory:
        notes.append(
            "GPU memory of a training over its GPUs, without activations (estimated): "
            f"{', '.join(memory)}."
        )
    return notes


def _row(members: list[Price], times: list[float]) -> tuple[str, ...]:
    return (
        str(len(members)),
        _hours(sum(one.gpu_hours for one in members)),
        *map(_hours, times),
        _size(sum(one.disk for one in members)),
        _size(sum(one.download for one in members)),
    )


def _wall(members: list[Price], gpus: int) -> float:
    """Hours of jobs that may run side by side: bound by the work, and by the longest of them."""
    work = sum(one.gpu_hours for one in members)
    return max(work / gpus, *(one.wall_hours(gpus) for one in members))


# --- jobs ---------------------------------------------------------------------------------------


def _training(job: PlannedJob, experiment: Experiment, published: Hours) -> Price | None:
    scale = experiment.models[job.target["model"]].scale
    parameters = _parameters(experiment, scale)
    hours = _measured(job)
    basis = "measured"
    if hours is None:
        hours, basis = _published(job, experiment, published)
    if parameters is None or hours is None:
        return None
    resources = experiment.resources.training.get(scale)
    return Price(
        gpu_hours=hours,
        widest=max(1, resources.gpus) if resources else 1,
        disk=WEIGHT_BYTES * parameters,
        scratch=CHECKPOINTS * TRAINING_BYTES * parameters,
        basis=basis,
    )


def _published(
    job: PlannedJob, experiment: Experiment, published: Hours
) -> tuple[float | None, str]:
    """GPU-hours by the paper's, in proportion to epochs and examples."""
    model = experiment.models[job.target["model"]]
    scale, data = experiment.scales[model.scale], experiment.data
    if not (
        isinstance(scale.base, HubBase)
        and scale.base.repository == PAPER_BASES[scale.stands_for]
        and isinstance(data, HubData)
        and data.dataset == PAPER_DATA
    ):
        return None, ""
    hours = published[scale.stands_for]["ar_sft" if model.method == "ar_sft" else "mars"]
    share = experiment.training_of(job.target["model"]).epochs / PAPER_EPOCHS
    share *= (data.limit or EXAMPLES) / EXAMPLES
    exact = share == 1 and model.method in ("ar_sft", "mars")
    return hours * share, "published" if exact else "estimated"


def _measured(job: PlannedJob) -> float | None:
    """GPU-hours of the training that wrote the job's record, if it ran on a GPU."""
    if not job.record.is_file():
        return None
    facts: dict[str, Any] = read_record(job.record).get("facts", {})
    if facts.get("device", "cpu") == "cpu":
        return None
    return facts["seconds"] * facts["processes"] / 3600


def _evaluation(name: str, experiment: Experiment) -> Price | None:
    model = experiment.models[name]
    counts = [
        _questions(experiment.benchmarks[benchmark])
        for chosen in experiment.evaluations_of(name).values()
        for benchmark in chosen
    ]
    if _parameters(experiment, model.scale) is None or None in counts:
        return None
    answers = sum(count or 0 for count in counts)
    rate = TOKENS_PER_SECOND[experiment.scales[model.scale].stands_for]
    hours = answers * experiment.evaluation.max_new_tokens / rate / 3600
    return Price(gpu_hours=hours, disk=answers * SAMPLE_BYTES)


def _questions(benchmark: Benchmark) -> int | None:
    if benchmark.task not in QUESTIONS:
        return None
    count, parts = QUESTIONS[benchmark.task]
    return count if benchmark.limit is None else min(count, benchmark.limit * parts)


def _steps(speed: Speed, name: str) -> float:
    """Steps of one token of a measurement, its round to warm up included."""
    part = speed.parts()[name]
    if isinstance(part, WallClock):  # every method and granularity at every batch size
        granular = {
            "block_cache": part.cache_blocks,
            "block_cache-authors": part.authors_cache_blocks,
        }
        methods = 2 + sum(len(granular.get(method, [method])) for method in part.methods)
        batches = sum((rounds + 1) / batch for batch, rounds in part.rounds.items())
        return methods * batches * part.questions * speed.max_new_tokens
    if isinstance(part, Speculative):
        return len(part.pairs) * (part.rounds + 1) * part.questions * speed.max_new_tokens
    assert isinstance(part, LiveTau)
    runs = 3 * part.traces  # tau of 1, a low tau, tau by the load
    return runs * part.requests * speed.max_new_tokens / part.slots / part.quiet_load


def _parameters(experiment: Experiment, scale: str) -> int | None:
    """Parameters of a scale's base model, where the table above has it."""
    base = experiment.scales[scale].base
    return PARAMETERS.get(base.repository) if isinstance(base, HubBase) else None


HEAD = ("stage", "jobs", "GPU-hours", "on 1 GPU", "on 8 GPUs", "disk", "download", "hours are")
ORDER = (
    *("fetch_dataset", "import_base", "import_released", "tokenize", "pretrain", "train"),
    *("evaluate", "measure_wall_clock", "measure_speculative", "measure_live_tau", "other"),
)


# --- words --------------------------------------------------------------------------------------


def _hours(hours: float) -> str:
    if hours == 0:
        return "-"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days ({hours:.0f} h)"


def _size(size: float) -> str:
    return "-" if size == 0 else readable_size(size, digits=0)
