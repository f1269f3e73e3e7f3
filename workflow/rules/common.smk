# The experiment, and where its files are. Only this file reads the configuration.
import json
from pathlib import Path

from snakemake.exceptions import WorkflowError

from mars.config.experiment import GeneratedData, ScratchBase, TrainingResources, load_experiment
from mars.errors import UserError
from mars.paper.claims.comparison import COMPARED
from mars.paper.tables.writers import SUFFIXES
from mars.audit import ledger
from mars.stages import datasets_of, released_models, spec, swept_models, trained_models


def experiment_of_this_run():
    """The configuration given with --configfile, or the default experiment."""
    files = workflow.configfiles or [workflow.source_path("../../config/tiny.yaml")]
    try:
        return load_experiment(*files)
    except UserError as error:
        raise WorkflowError(str(error)) from None


EXPERIMENT = experiment_of_this_run()
RESULTS = f"results/{EXPERIMENT.experiment}"
HUB = f"{RESULTS}/data/hub"
GENERATED = isinstance(EXPERIMENT.data, GeneratedData)
SPEED = EXPERIMENT.speed
TABLES = [name for name in EXPERIMENT.artefacts if name == "findings" or name.startswith("table")]
TRAINED = trained_models(EXPERIMENT)
PRETRAINED = [name for name in TRAINED if EXPERIMENT.models[name].method == "base"]
FINE_TUNED = [name for name in TRAINED if name not in PRETRAINED]
RELEASED = released_models(EXPERIMENT)
IMPORTED = [name for name in EXPERIMENT.models if name not in TRAINED + RELEASED]
# A clone knows what is done from the notes that came with the results.
ledger.restore(Path(RESULTS))


def names(values):
    """A wildcard constraint that admits exactly these names."""
    return "|".join(map(re.escape, values)) or "(?!)"


wildcard_constraints:
    model=names(EXPERIMENT.models),
    scale=names(EXPERIMENT.scales),
    kind="instructions|documents",


def stage_spec(stage, **fixed):
    """The spec of a stage as a function of a rule's wildcards."""
    return lambda wildcards: spec(EXPERIMENT, stage, **fixed, **wildcards)


# GPUs of a job. Snakemake counts them, `mars with-gpus` or the scheduler says which ones they are.
EVALUATION_GPUS = EXPERIMENT.resources.evaluation_gpus


def training_resources(wildcards):
    """GPUs of a training, and whether the model is spread over them."""
    scale = EXPERIMENT.models[wildcards.model].scale
    return EXPERIMENT.resources.training.get(scale, TrainingResources(gpus=0))


# A measurement of speed has a machine for itself, with `threads: alone` and
# `slurm_extra=WHOLE_NODE`: here all cores, of which every other job needs one; of a cluster a node.
WHOLE_NODE = "--exclusive"


def alone(wildcards):
    """Threads of a job beside which no other one runs."""
    return workflow.cores


def data_manifests(datasets):
    """The manifests that stand for these data sets."""
    if GENERATED:
        return [f"{HUB}/manifest.json"]
    return [f"{HUB}/{name}/manifest.json" for name in datasets]


def checkpoint(model):
    return f"{RESULTS}/checkpoints/{model}"


def base_of(scale):
    """The model of a scale that is its base."""
    return next(
        name
        for name, entry in EXPERIMENT.models.items()
        if entry.scale == scale and entry.method == "base"
    )


def tokenizer_of(scale):
    """The folder whose tokenizer a scale's training data is made with."""
    if isinstance(EXPERIMENT.scales[scale].base, ScratchBase):
        return f"{RESULTS}/data/tokenizer"
    return checkpoint(base_of(scale))


def examples_of(scale):
    """The scale for which a scale's examples are made: the first one with the same tokenizer."""
    return next(one for one in EXPERIMENT.scales if tokenizer_of(one) == tokenizer_of(scale))


def training_inputs(wildcards):
    """What a model starts from, and the examples it is trained on."""
    entry = EXPERIMENT.models[wildcards.model]
    kind = "documents" if entry.method == "base" else "instructions"
    start = checkpoint(entry.parent) if entry.parent else tokenizer_of(entry.scale)
    return {
        "parent": f"{start}/manifest.json",
        "dataset": f"{RESULTS}/data/tokens/{examples_of(entry.scale)}/{kind}/manifest.json",
    }


def example_inputs(wildcards):
    """What Figure 1 is decoded from."""
    shown = json.loads(spec(EXPERIMENT, "figure_1"))["config"]
    return {
        "checkpoint": f"{checkpoint(shown['model'])}/manifest.json",
        "evaluation": f"{RESULTS}/evaluations/{shown['model']}/manifest.json",
        "data": data_manifests([shown["task"]["dataset"]]),
    }


def files_of(artefact):
    """The files of a table or figure that people open."""
    if artefact in TABLES:
        return [f"{RESULTS}/tables/{artefact}.{suffix}" for suffix in SUFFIXES]
    return [f"{RESULTS}/figures/{artefact}.{suffix}" for suffix in ("pdf", "png")]


def manifests_behind(folder, stage, **target):
    """The manifests in a folder of results, one per model that an artefact shows."""
    models = json.loads(spec(EXPERIMENT, stage, **target))["config"]["models"]
    return expand(f"{RESULTS}/{folder}/{{model}}/manifest.json", model=models)


def timed_models(part):
    """The manifests of the models that a part of the section `speed` names."""
    names = SPEED.models() if SPEED else {}
    chosen = [name for key, name in names.items() if key.startswith(f"{part}.")]
    return [f"{checkpoint(name)}/manifest.json" for name in dict.fromkeys(chosen)]
