"""The stages of the pipeline by name; each is said in the ``stage.py`` of its room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mars.checkpoints.stage import IMPORT_BASE, IMPORT_RELEASED
from mars.config.experiment import Experiment
from mars.data.stage import FETCH_DATASET, GENERATE_DATA, TOKENIZE, TRAIN_TOKENIZER
from mars.errors import UserError
from mars.evaluation.stage import EVALUATE
from mars.paper.artefacts import ARTEFACTS
from mars.paper.stage import CLAIMS, COMPARISON, REPORT
from mars.provenance.stage import Stage, Target
from mars.speed.stage import MEASURE
from mars.training.stage import PRETRAIN, TRAIN

STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for stage in (
        *(GENERATE_DATA, FETCH_DATASET, TRAIN_TOKENIZER, TOKENIZE),
        *(IMPORT_BASE, IMPORT_RELEASED, PRETRAIN, TRAIN, EVALUATE),
        *MEASURE.values(),
        *(artefact.stage for artefact in ARTEFACTS.values()),
        *(COMPARISON, CLAIMS, REPORT),
    )
}


# What a job of a rule is for: the wildcards in the path of its record, provenance/<rule>/...
WILDCARDS: dict[str, tuple[str, ...]] = {
    "fetch_dataset": ("repository",),
    "tokenize": ("scale", "kind"),
    **dict.fromkeys(("import_checkpoint", "pretrain", "train", "evaluate"), ("model",)),
    "measure": ("part",),
    **dict.fromkeys(("table", "figure"), ("artefact",)),
}


def job_of(
    experiment: Experiment, rule: str, wildcards: Mapping[str, str]
) -> tuple[Stage[Any], Target]:
    """The stage that a job of the workflow runs, and for what."""
    if rule == "measure":
        return MEASURE[wildcards["part"]], {}
    if rule in ("table", "figure"):
        return ARTEFACTS[wildcards["artefact"]].stage, {}
    if rule == "import_checkpoint":
        released = experiment.models[wildcards["model"]].source == "released"
        return IMPORT_RELEASED if released else IMPORT_BASE, dict(wildcards)
    return STAGES[rule], dict(wildcards)


def jobs_of(experiment: Experiment) -> dict[str, list[JobSpec]]:
    """The specs of all jobs of an experiment, by rule."""
    trained = experiment.trained_models()
    pretrained = [name for name in trained if experiment.models[name].parent is None]
    shown = [name for name in ARTEFACTS if name in artefacts_of(experiment)]
    needed = {
        Path(file).parent
        for stage, target in (
            *((TRAIN, {"model": model}) for model in trained),
            *((ARTEFACTS[name].stage, {}) for name in shown),
        )
        for file in stage.inputs(experiment, **target)
    }
    wildcards: dict[str, list[dict[str, str]]] = {
        "generate_data": [{}] if experiment.generated else [],
        "fetch_dataset": [{"repository": name} for name in _fetched(experiment)],
        "train_tokenizer": [{}] if Path(TOKENIZER).parent in needed else [],
        "tokenize": [
            {"scale": path.parts[-2], "kind": path.parts[-1]}
            for path in sorted(needed)
            if path.match("data/tokens/*/*")
        ],
        "import_checkpoint": [{"model": n} for n in experiment.models if n not in trained],
        "pretrain": [{"model": name} for name in pretrained],
        "train": [{"model": name} for name in trained if name not in pretrained],
        "evaluate": [{"model": name} for name in experiment.evaluated_models()],
        "measure": [{"part": part} for part in MEASURE if Path("speed", part) in needed],
        **{
            kind: [{"artefact": name} for name in shown if ARTEFACTS[name].kind == kind]
            for kind in ("table", "figure")
        },
        **{rule: [{}] for rule in ("comparison", "claims", "report")},
    }
    return {
        rule: [
            stage.planned(experiment, target)
            for one in of_rule
            for stage, target in [job_of(experiment, rule, one)]
        ]
        for rule, of_rule in wildcards.items()
    }


def stage_named(name: str) -> Stage[Any]:
    """A stage by name.

    Raises:
        UserError: there is none.
    """
    if name not in STAGES:
        raise UserError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}.")
    return STAGES[name]
