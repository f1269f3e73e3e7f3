"""The jobs of an experiment: the stage that a job of a rule runs, and which jobs there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mars.checkpoints.stage import IMPORT_BASE, IMPORT_RELEASED
from mars.config.experiment import Experiment
from mars.paper.artefacts import ARTEFACTS
from mars.provenance.stage import JobSpec, Stage, Target
from mars.speed.stage import MEASURE
from mars.stages import STAGES

# What a job of a rule is for: the wildcards in the path of its record, provenance/<rule>/...
WILDCARDS: dict[str, tuple[str, ...]] = {
    "fetch_dataset": ("repository",),
    "tokenize": ("scale", "kind"),
    **dict.fromkeys(("import_checkpoint", "pretrain", "train", "evaluate", "probe"), ("model",)),
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
        released = wildcards["model"] in experiment.released_models()
        return IMPORT_RELEASED if released else IMPORT_BASE, dict(wildcards)
    return STAGES[rule], dict(wildcards)


def specs_of(experiment: Experiment) -> dict[str, list[JobSpec]]:
    """The specs of all jobs of an experiment, by rule: all that its page and models rest on."""
    waiting = [f"checkpoints/{name}/manifest.json" for name in experiment.models]
    waiting += [f"evaluations/{name}/manifest.json" for name in experiment.evaluated_models()]
    waiting += ["report.html"]
    found: dict[str, list[JobSpec]] = {}
    for file in waiting:
        rule, wildcards = _maker(experiment, file)
        stage, target = job_of(experiment, rule, wildcards)
        spec = stage.planned(experiment, target)
        if spec not in found.setdefault(rule, []):
            found[rule].append(spec)
            waiting += stage.inputs(experiment, **target)
    return found


def _maker(experiment: Experiment, file: str) -> tuple[str, Target]:
    """The rule that makes a file of the folder of results, and its wildcards."""
    path = PurePath(file)
    match path.parts:
        case ("data", "hub", "manifest.json"):
            return "generate_data", {}
        case ("data", "hub", *repository, _):
            return "fetch_dataset", {"repository": "/".join(repository)}
        case ("data", "tokenizer", _):
            return "train_tokenizer", {}
        case ("data", "tokens", scale, kind, _):
            return "tokenize", {"scale": scale, "kind": kind}
        case ("checkpoints", model, _):
            return _rule_of(experiment, model), {"model": model}
        case ("provenance", rule, _):
            return rule, {"model": path.stem}
        case ("evaluations", model, _):
            return "evaluate", {"model": model}
        case ("probes", model, _):
            return "probe", {"model": model}
        case ("speed", part, _):
            return "measure", {"part": part}
        case ("tables" | "figures" as folder, _):
            return folder.removesuffix("s"), {"artefact": path.stem}
        case _:
            return path.stem, {}


def _rule_of(experiment: Experiment, model: str) -> str:
    """The rule that makes a checkpoint."""
    if model not in experiment.trained_models():
        return "import_checkpoint"
    return "pretrain" if experiment.models[model].parent is None else "train"
