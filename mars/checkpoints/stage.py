"""The stages that import ready checkpoints: base models, and those that the authors released."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mars.config.experiment import Experiment, HubBase, PackageBase, Released, ScratchBase
from mars.errors import UserError
from mars.provenance.manifest import new_folder
from mars.provenance.stage import Job, Spec, Stage


class BaseSpec(Spec):
    """A ready base model, and its mask token."""

    base: HubBase | PackageBase = Field(discriminator="source")


def resolve_base(experiment: Experiment, model: str) -> BaseSpec:
    """UserError for a model that is trained here, or is no base."""
    base = experiment.scales[experiment.models[model].scale].base
    if experiment.models[model].method != "base" or isinstance(base, ScratchBase):
        raise UserError(f"{model} is not a ready base model; there is nothing to import.")
    return BaseSpec(base=base)


def run_import_base(spec: BaseSpec, job: Job) -> dict[str, Any]:
    """Write a ready base model (package or hub) as a checkpoint with a mask token."""
    from mars.checkpoints.ready import import_base

    with new_folder(job.output) as folder:
        return import_base(spec.base, folder)


class ReleasedSpec(Spec):
    """A checkpoint that the authors published, and what it was trained to be."""

    released: Released
    method: str
    block_size: int | None  # None for `ar_sft`


def resolve_released(experiment: Experiment, model: str) -> ReleasedSpec:
    """UserError for a model that is trained here."""
    entry = experiment.models[model]
    if entry.source != "released" or entry.released is None:
        raise UserError(f"{model} is trained here; there is no released checkpoint to import.")
    return ReleasedSpec(released=entry.released, method=entry.method, block_size=entry.block_size)


def run_import_released(spec: ReleasedSpec, job: Job) -> dict[str, Any]:
    """Write a checkpoint that the authors released as a plain one; their code is never run."""
    from mars.checkpoints.ready import import_released

    with new_folder(job.output) as folder:
        return import_released(spec, folder)


RULE = "import_checkpoint"
IMPORT_BASE = Stage("import_base", BaseSpec, resolve_base, run_import_base, rule=RULE, online=True)
IMPORT_RELEASED = Stage(
    "import_released", ReleasedSpec, resolve_released, run_import_released, rule=RULE, online=True
)
