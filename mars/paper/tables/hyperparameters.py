"""Table 7: the hyper-parameters that our models were trained with, and what that cost.

Everything of ours comes from the provenance records of the training jobs, the paper's from its
table. The paper gives hours on H200; ours are hours of the devices that the records name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from mars.config.experiment import Data
from mars.paper import published
from mars.paper.published import SCALES, STAGE_EPOCHS
from mars.paper.specs import ModelIdentity, PaperScale, seeds_of
from mars.paper.tables.notes import data_note, missing_notes, scale_notes, seed_notes
from mars.paper.tables.table import NONE, Measured, Table, TableCell
from mars.provenance.stage import Spec

CAPTION = "Hyper-parameters and the measured cost of training."
SETTINGS, COST = "Hyper-parameters", "Measured cost of one training stage"
# Rows of the paper's table that are measurements; the others are settings.
MEASURED = ("ar_sft_h200_hours", "mars_h200_hours")
PUBLISHED = ("AR SFT", "MARS (B=4)")  # stages that it gives a cost of

TrainingRecord = Mapping[str, Any]
"""Provenance record of a training job."""


class TrainedSpec(Spec):
    """What the trained models are, and on what they were trained."""

    data: Data
    scales: dict[str, PaperScale]
    models: dict[str, ModelIdentity]
    max_new_tokens: int


def hyperparameters(spec: TrainedSpec, records: Mapping[str, TrainingRecord]) -> Table:
    """Table 7, from the provenance records of the training jobs by model."""
    cells = [*_settings(spec, records), *_costs(spec, records)]
    notes = [
        "Our values come from the records of the training jobs, the paper's from Table 7 of arXiv "
        "2604.07023. Its cost over AR SFT is the ratio of two numbers printed there; its peak "
        "memory over AR SFT is stated in its text.",
        *scale_notes(spec.scales),
        *([data_note(spec.data)] if records else []),
        "Device-hours are hours of training times the number of processes, on the hardware listed "
        "in the table, which is not the paper's. Tokens are those that the model read, including "
        "masks.",
        *seed_notes(cells),
        *missing_notes(cells),
    ]
    layout = (("row", "quantity"), ("scale",), ("part",), {"row": "What"})
    return Table("table7", CAPTION, cells, notes, *layout)


def _of_scale(
    scale: str, spec: TrainedSpec, records: Mapping[str, TrainingRecord]
) -> dict[str, ModelIdentity]:
    """The trained models that stand for a scale of the paper."""
    models = {name: spec.models[name] for name in records}
    return {n: one for n, one in models.items() if spec.scales[one.scale].stands_for == scale}


# --- hyper-parameters ---------------------------------------------------------------------------


def _settings(spec: TrainedSpec, records: Mapping[str, TrainingRecord]) -> list[TableCell]:
    printed = {scale: published.hyperparameters(scale) for scale in SCALES}
    ours = {scale: _settings_of(scale, spec, records) for scale in SCALES}
    return [
        TableCell(
            scale=scale,
            row=name.replace("_", " "),
            quantity="value",
            model=", ".join(_of_scale(scale, spec, records)) or None,
            setting=NONE,
            ours=ours[scale].get(name),
            published=printed[scale][name],
            extra={"part": SETTINGS},
        )
        for name in printed[SCALES[0]]
        if name not in MEASURED
        for scale in SCALES
    ]


def _settings_of(
    scale: str, spec: TrainedSpec, records: Mapping[str, TrainingRecord]
) -> dict[str, str]:
    """Our value of each hyper-parameter, by the paper's name of it; none if nothing was trained."""
    models = _of_scale(scale, spec, records)
    tuned = {name: model for name, model in models.items() if model.method != "base"}
    if not tuned:
        return {}

    def distinct(value: Callable[[ModelIdentity, TrainingRecord], Any]) -> str:
        values = ((model.method, value(model, records[name])) for name, model in tuned.items())
        return _distinct((stage, _plain(found)) for stage, found in values)

    def training(key: str) -> str:
        return distinct(lambda _, record: _training(record)[key])

    sizes = sorted({model.block_size for model in tuned.values() if model.block_size})
    base = next(one.base for one in spec.scales.values() if one.stands_for == scale)
    parameters = sorted({records[name]["facts"]["parameters"] for name in models})
    scratch = f"from scratch, {' or '.join(f'{size:,}' for size in parameters)} parameters"
    return {
        "base_model": base.name or scratch,
        "training_data": data_note(spec.data).removeprefix("Fine-tuned on ").rstrip("."),
        # The training loop has one optimiser and one schedule (mars/training/trainer.py).
        "optimizer": "AdamW",
        "learning_rate": training("learning_rate"),
        "lr_schedule": "cosine decay",
        "warmup_ratio": training("warmup_ratio"),
        "epochs_per_stage": distinct(lambda m, r: _training(r)["epochs"] / m.epochs_factor),
        "max_sequence_length": training("max_length"),
        "per_device_batch_size": f"{training('rows_per_forward')} packed rows"
        f" of {training('row_length')} tokens",
        "gradient_accumulation": "as many forwards as a batch needs",
        "effective_batch_size": training("batch_size"),
        "precision": training("precision"),
        "hardware": distinct(lambda _, record: _hardware(record)),
        "block_sizes": ", ".join(map(str, sizes)) or NONE,
        "max_new_tokens": str(spec.max_new_tokens),
        "decoding": "greedy",
    }


def _training(record: TrainingRecord) -> Mapping[str, Any]:
    """The section `training` as it held for a job."""
    return record["spec"]["config"]["training"]


def _distinct(values: Iterable[tuple[str, str]]) -> str:
    """One value if all stages agree, else each with its stage: ``2 (AR) / 4 (MARS)``."""
    by_value: dict[str, dict[str, None]] = {}
    for stage, text in values:
        by_value.setdefault(text, {})[stage] = None
    if len(by_value) == 1:
        return next(iter(by_value))
    return " / ".join(f"{text} ({', '.join(stages)})" for text, stages in by_value.items())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hardware(record: TrainingRecord) -> str:
    gpus = record["hardware"]["gpus"]
    if gpus and record["facts"]["device"] != "cpu":
        return f"{len(gpus)}x {gpus[0]}"
    return f"{record['hardware']['processor']}, {record['hardware']['cores']} cores"


# --- cost ---------------------------------------------------------------------------------------


def _costs(spec: TrainedSpec, records: Mapping[str, TrainingRecord]) -> list[TableCell]:
    """What each stage cost, by scale; stages that several models share carry the model's name."""
    cells = []
    for scale in SCALES:
        models = _of_scale(scale, spec, records)
        labels = {name: _stage(model) for name, model in models.items() if model.seed_of is None}
        seeds = {
            name: [records[one] for one in seeds_of(name, spec.models) if one in records]
            for name in labels
        }
        ar = next((seeds[name] for name, label in labels.items() if label == "AR SFT"), None)
        stages: list[tuple[str, str | None]] = [(label, name) for name, label in labels.items()]
        # The stages that the paper gives a cost of have their row, trained here or not.
        stages += [(label, None) for label in PUBLISHED if label not in labels.values()]
        for label, name in stages:
            ours = _cost(seeds[name], ar) if name else {}
            paper = _published_cost(label, scale)
            shared = list(labels.values()).count(label) > 1
            cells += [
                TableCell(
                    scale=scale,
                    row=f"{label} [{name}]" if shared else label,
                    quantity=quantity,
                    model=name,
                    setting=NONE,
                    ours=ours.get(quantity),
                    published=paper.get(quantity),
                    extra={"part": COST},
                )
                for quantity in ours or paper
            ]
    # Cells of the same row next to each other, scales side by side.
    order = list(dict.fromkeys((cell.row, cell.quantity) for cell in cells))
    rows = list(dict.fromkeys(row for row, _ in order))
    return sorted(cells, key=lambda c: (rows.index(c.row), order.index((c.row, c.quantity))))


def _stage(model: ModelIdentity) -> str:
    """A training stage by what it is."""
    if model.method == "base":
        return "Base (pre-training)"
    if model.method == "ar_sft":
        epochs = STAGE_EPOCHS * model.epochs_factor
        return "AR SFT" if epochs == STAGE_EPOCHS else f"AR SFT ({epochs:g} ep)"
    if model.method == "block_diffusion":
        shift = "" if model.right_shift else ", logits not shifted"
        return f"Block Diffusion (B={model.block_size}){shift}"
    loss = "" if model.ar_weight > 0 else " w/o SFT loss"
    weighting = ", 1/t weighting" if model.inverse_t_weighting else ""
    return f"MARS{loss} (B={model.block_size}){weighting}"


def _cost(
    seeds: Sequence[TrainingRecord], ar: Sequence[TrainingRecord] | None
) -> dict[str, Measured]:
    """What one training cost, on average over the seeds of a model; over AR SFT where there is one.

    Args:
        seeds, ar: records of the trainings of the model, and of AR SFT, in the order of the seeds.
    """
    ours, against = list(map(_cost_of_one, seeds)), list(map(_cost_of_one, ar or ()))
    if against and seeds[0]["spec"]["config"]["method"] != "pretrain":
        for number, cost in enumerate(ours):
            other = against[min(number, len(against) - 1)]
            cost["cost_over_ar_sft"] = cost["device_hours"] / other["device_hours"]
            memory = cost["peak_memory_gib"] / other["peak_memory_gib"]
            cost["peak_memory_over_ar_sft"] = memory
    columns = {name: tuple(float(cost[name]) for cost in ours) for name in ours[0]}
    return {
        name: Measured(fmean(values), seeds=values if len(values) > 1 else ())
        for name, values in columns.items()
    }


def _cost_of_one(record: TrainingRecord) -> dict[str, float]:
    facts = record["facts"]
    return {
        "device_hours": facts["seconds"] * facts["processes"] / 3600,
        **{name: facts[name] for name in ("seconds", "steps", "tokens", "tokens_per_second")},
        "peak_memory_gib": facts["peak_memory_bytes"] / 2**30,
    }


def _published_cost(stage: str, scale: str) -> dict[str, float]:
    """The paper's cost of a stage, where it prints one; of MARS it does not say the block size."""
    ar, mars = (float(published.hyperparameters(scale)[name]) for name in MEASURED)
    if stage == "AR SFT":
        return {"device_hours": ar}
    over_ar = {"cost_over_ar_sft": mars / ar}
    over_ar["peak_memory_over_ar_sft"] = published.PEAK_MEMORY_OVER_AR
    return {"device_hours": mars, **over_ar} if re.fullmatch(r"MARS \(B=\d+\)", stage) else {}
