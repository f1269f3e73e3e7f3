# The experiment, and where its files are. Only this file reads the configuration.
from pathlib import Path

from snakemake.exceptions import WorkflowError

from mars.publishing import ledger
from mars.planning.differences import unlike_the_lock
from mars.planning.jobs import job_of, specs_of
from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.paper.artefacts import ARTEFACTS, artefacts_of
from mars.speed.stage import MEASURE


def experiment_of_this_run():
    """The configuration given with --configfile, or the default experiment."""
    if workflow.config_settings.config:
        raise WorkflowError("--config is not read; say it in an overlay, a second --configfile.")
    files = workflow.configfiles or [workflow.source_path("../../config/tiny.yaml")]
    try:
        return load_experiment(*files)
    except UserError as error:
        raise WorkflowError(str(error)) from None


EXPERIMENT = experiment_of_this_run()
# For Snakemake's own report.
config.update(experiment=EXPERIMENT.experiment, description=EXPERIMENT.description)
RESULTS = f"results/{EXPERIMENT.experiment}"
TRAINED = EXPERIMENT.trained_models()
PRETRAINED = [name for name in TRAINED if EXPERIMENT.models[name].method == "base"]
SHOWN = artefacts_of(EXPERIMENT)
# A clone knows what is done from the notes that came with the results.
ledger.restore(Path(RESULTS))
if ledger.is_kept(Path(RESULTS)):
    ledger.write_specs(Path(RESULTS), specs_of(EXPERIMENT))


def names(values):
    """A wildcard constraint that admits exactly these names."""
    return "|".join(map(re.escape, values)) or "(?!)"


wildcard_constraints:
    model=names(EXPERIMENT.models),
    scale=names(EXPERIMENT.scales),
    kind="instructions|documents",


def spec_of(rule):
    """The spec of a rule's job as a function of its wildcards: the only parameter of a rule."""

    def spec(wildcards):
        stage, target = job_of(EXPERIMENT, rule, wildcards)
        return stage.planned(EXPERIMENT, target).canonical()

    return spec


def inputs_of(rule):
    """The input files of a rule's job as a function of its wildcards."""

    def inputs(wildcards):
        stage, target = job_of(EXPERIMENT, rule, wildcards)
        return [f"{RESULTS}/{file}" for file in stage.inputs(EXPERIMENT, **target)]

    return inputs


def files_of(artefact):
    """The files of a table or figure that people open."""
    return [f"{RESULTS}/{file}" for file in ARTEFACTS[artefact].files]


def gpus_of_training(wildcards):
    """How many GPUs a training asks for."""
    return EXPERIMENT.resources.of_training(EXPERIMENT.models[wildcards.model].scale).gpus


def options_of_training(wildcards):
    """How it uses them, as options of `mars run`."""
    options = EXPERIMENT.resources.options(EXPERIMENT.models[wildcards.model].scale)
    given = options.model_dump(exclude_none=True)
    return " ".join(f"--option {key}={value}" for key, value in given.items())


def options_of_evaluation(wildcards):
    """Whether an evaluation compiles, and where its server stands, as options of `mars run`."""
    server = EXPERIMENT.evaluation.endpoint.get(wildcards.model)
    given = server.model_dump(exclude={"model"}, exclude_none=True) if server else {}
    compiles = ["--option compile=true"] if EXPERIMENT.resources.evaluation_compile else []
    return " ".join([*compiles, *(f"--endpoint {key}={value}" for key, value in given.items())])
