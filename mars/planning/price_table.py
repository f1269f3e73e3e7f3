"""The price of a run as a table, with everything that it assumes below it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mars.planning.gpu_speed import (
    BANDWIDTH,
    BANDWIDTH_SHARE,
    LAUNCHED_STEP,
    LEAST_STEP,
    MEASURED,
    PEAK_FLOPS,
    UTILISATION,
)
from mars.planning.plan import PlannedJob
from mars.planning.price import (
    ANSWER_TOKENS,
    CHECKPOINTS,
    EXAMPLES,
    FREE,
    PER_FORWARD,
    TRAINING_BYTES,
    Price,
    Prices,
)
from mars.provenance.files import readable_size

Hours = Mapping[str, Mapping[str, float]]
"""The paper's H200-hours of a training, by scale and then ``ar_sft`` and ``mars``."""
PAPER_EPOCHS = 5  # for which they hold
MANY = 10**6  # rounds: more than any limit

HEAD = ("stage", "jobs", "GPU-hours", "on 1 GPU", "on 8 GPUs", "disk", "download", "hours are")
ORDER = (
    *("fetch_dataset", "import_base", "import_released", "tokenize", "pretrain", "train"),
    *("evaluate", "measure_wall_clock", "measure_speculative", "measure_live_tau"),
    *("measure_vllm", "other"),
)


def price_table(planned: Iterable[PlannedJob], prices: Prices, published: Hours) -> list[str]:
    """A table of the stages that would run, by what their hours rest on; offline.

    Nothing is returned if the price of any job is not known, or no job has one.
    """
    running = [job for job in planned if job.runs]
    groups: dict[tuple[str, str], list[Price]] = defaultdict(list)
    for job in running:
        one = prices.of(job)
        if one is None:
            return []
        groups["other" if one is FREE else job.stage, one.basis].append(one)
    if {stage for stage, _ in groups} <= {"other"}:
        return []
    everything = [one for members in groups.values() for one in members]
    rows: list[tuple[str, ...]] = [HEAD]
    times = {key: [_wall(members, gpus) for gpus in (1, 8)] for key, members in groups.items()}
    for stage, basis in sorted(groups, key=lambda key: ORDER.index(key[0])):
        rows.append((stage, *_row(groups[stage, basis], times[stage, basis]), basis))
    totals = [sum(column) for column in zip(*times.values(), strict=True)]
    rows.append(("all", *_row(everything, totals), ""))
    return [*_aligned(rows), "", *_notes(running, prices, published)]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < index < len(row) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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


# --- notes --------------------------------------------------------------------------------------


def _notes(running: list[PlannedJob], prices: Prices, published: Hours) -> list[str]:
    gpus = ", ".join(one.device.name for one in prices.speed.results)
    notes = [
        "measured:   from the record of this very job, on the GPUs that it names",
        f"calibrated: modelled, with the speed measured on {gpus or 'a GPU; none has been yet'}",
        "modelled:   by arithmetic and the following assumptions; disk and download always",
    ]
    trained = [job.target["model"] for job in running if job.stage == "train"]
    stages = {job.stage for job in running}
    if trained:
        notes += _of_training(trained, prices, published)
    if "evaluate" in stages:
        notes.append("- Evaluation: every answer is as long as it may be, one token per forward.")
    if "evaluate" in stages or any(stage.startswith("measure") for stage in stages):
        notes += [
            f"- A decoding step reads the weights at {BANDWIDTH_SHARE:.0%} of "
            f"{BANDWIDTH / 1e12:.1f} TB/s, but takes {1e3 * LEAST_STEP:.0f} ms at least, and "
            f"{1e3 * LAUNCHED_STEP:.0f} ms",
            "  without CUDA graphs (AR at 7B in Table 5). Products take as long as in training.",
        ]
    if any(stage.startswith("measure") for stage in stages):
        notes += _of_timing(running, prices)
    notes.append("- Wall time: stages one after the other, GPUs share the work without loss.")
    return [*notes, *_needs(trained, prices)]


def _of_training(trained: list[str], prices: Prices, published: Hours) -> list[str]:
    examples = prices.examples(prices.experiment.models[trained[0]].scale)
    assert examples is not None
    source = "as tokenised here" if examples.basis == MEASURED else "assumed"
    notes = [
        f"- Training: {examples.count:,.0f} examples of {examples.prompt:.0f} tokens of prompt and "
        f"{examples.response:.0f} of response, {source}; MARS forwards",
        f"  the response twice. All operations count, at {UTILISATION:.0%} of "
        f"{PEAK_FLOPS / 1e12:.0f} TFLOP/s; GPUs forward equally many rows.",
    ]
    hours = [_published(name, prices, published) for name in trained]
    if None not in hours:
        notes += [
            f"- Published for the same trainings: {sum(one or 0 for one in hours):.0f} H200-hours "
            "(the paper's Table 7; the authors' code pads)."
        ]
    return notes


def _published(name: str, prices: Prices, published: Hours) -> float | None:
    """H200-hours of a training as the paper has them, in proportion to epochs and examples."""
    model = prices.experiment.models[name]
    shape = prices.shape(model.scale)
    examples = prices.examples(model.scale)
    if shape is None or examples is None or examples.basis == "measured":
        return None
    hours = published[shape]["ar_sft" if model.method == "ar_sft" else "mars"]
    epochs = prices.experiment.training_of(name).epochs
    return hours * epochs / PAPER_EPOCHS * examples.count / EXAMPLES


def _of_timing(running: list[PlannedJob], prices: Prices) -> list[str]:
    timed = [job for job in running if job.stage.startswith("measure")]
    longest = replace(prices, rounds=MANY)
    most = sum(one.gpu_hours for job in timed if (one := longest.of(job)))
    return [
        f"- Timing: answers of {ANSWER_TOKENS} tokens (Table 5), {PER_FORWARD} tokens per forward "
        f"of MARS, {prices.rounds} rounds where the limit",
        f"  allows them; {_hours(most)} if every measurement needed as many rounds as its limit.",
    ]


def _needs(trained: list[str], prices: Prices) -> list[str]:
    """What a training needs of every GPU and of the disk."""
    experiment = prices.experiment
    tokens = experiment.training.row_length * experiment.training.rows_per_forward
    lines = []
    for scale in dict.fromkeys(experiment.models[name].scale for name in trained):
        decoder, memory = prices.decoder(scale), prices.memory(scale)
        if decoder is None or memory is None:
            continue
        resources = experiment.resources.of_training(scale)
        how = [f"on each of {resources.gpus}" if resources.gpus > 1 else "on one"]
        how += ["sharded"] * resources.sharded
        how += ["activation checkpointing"] * resources.activation_checkpointing
        lines += [
            f"GPU memory to train {scale} (modelled): {_size(memory.total)} {', '.join(how)}, with "
            f"{tokens} tokens per forward:",
            f"  {_size(memory.state)} weights and optimiser, {_size(memory.copies)} copies, "
            f"{_size(memory.activations)} activations, "
            f"{_size(max(memory.loss, memory.working))} loss or layer at work; "
            f"on disk meanwhile {_size(CHECKPOINTS * TRAINING_BYTES * decoder.parameters)}.",
        ]
    return lines


# --- words --------------------------------------------------------------------------------------


def _hours(hours: float) -> str:
    if hours == 0:
        return "-"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days ({hours:.0f} h)"


def _size(size: float) -> str:
    return "-" if size == 0 else readable_size(size, digits=0)
