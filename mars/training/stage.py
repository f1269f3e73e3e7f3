"""The stages that train: base models from random weights, other models from a parent."""

from __future__ import annotations

import os
from typing import Any, Literal

from mars.config.experiment import Architecture, Experiment, ScratchBase, Training
from mars.data.stage import tokenizer_of, tokens_of
from mars.errors import UserError
from mars.provenance.stage import Job, Spec, Stage


class TrainSpec(Spec):
    """One training; ``pretrain`` is next-token prediction from random weights."""

    method: Literal["pretrain", "ar_sft", "mars", "block_diffusion"]
    block_size: int | None = None  # B, of mars and block_diffusion
    ar_weight: float | None = None  # of mars: of the AR loss beside the mask loss
    architecture: Architecture | None = None  # of the new model, for pretrain
    training: Training

    @property
    def normalisation(self) -> str:
        """As published unless set: per sequence for dual streams, per token for AR (B3)."""
        published = "sequence" if self.method in ("mars", "block_diffusion") else "token"
        return self.training.normalisation or published


def resolve_pretraining(experiment: Experiment, model: str) -> TrainSpec:
    """UserError for a model that starts from a checkpoint."""
    base = experiment.scales[experiment.models[model].scale].base
    if not isinstance(base, ScratchBase) or experiment.models[model].method != "base":
        raise UserError(f"{model} is not trained from random weights; there is no pre-training.")
    training = experiment.training_of(model)
    return TrainSpec(method="pretrain", architecture=base.architecture, training=training)


def resolve_training(experiment: Experiment, model: str) -> TrainSpec:
    """UserError for a model that is not fine-tuned here."""
    entry = experiment.models[model]
    if entry.source != "train" or entry.method == "base":
        raise UserError(f"{model} is a ready checkpoint or pre-trained; it is not fine-tuned here.")
    return TrainSpec(
        method=entry.method,
        block_size=entry.block_size,
        ar_weight=entry.ar_weight if entry.method == "mars" else None,
        training=experiment.training_of(model),
    )


def inputs(experiment: Experiment, model: str) -> list[str]:
    """What a model starts from (to pre-train: a tokenizer), and its examples."""
    entry = experiment.models[model]
    if entry.parent is None:
        start, kind = tokenizer_of(experiment, entry.scale), "documents"
    else:
        start, kind = f"checkpoints/{entry.parent}/manifest.json", "instructions"
    return [start, tokens_of(experiment, entry.scale, kind)]


def run(spec: TrainSpec, job: Job) -> dict[str, Any]:
    """Train one model; started again after a kill, it resumes where it stopped.

    Each of several processes calls this; the first one writes the checkpoint.
    """
    from mars.machine.gpus import end_with_parent
    from mars.training.trainer import train

    if "RANK" in os.environ:  # one of several processes that a launcher started
        end_with_parent()
    return train(
        spec,
        parent=job.inputs.folder("tokenizer" if spec.method == "pretrain" else "checkpoints"),
        dataset=job.inputs.folder("tokens"),
        work=job.work,
        output=job.output,
        options=job.options,
    )


PRETRAIN = Stage("pretrain", TrainSpec, resolve_pretraining, run, inputs)
TRAIN = Stage("train", TrainSpec, resolve_training, run, inputs)
