"""What the figures see of an experiment, what they are drawn from, and how."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mars.config.experiment import Benchmark, Evaluation, Experiment, Setting
from mars.data.stage import data_manifests
from mars.errors import UserError
from mars.paper.evaluations import Evaluations
from mars.paper.specs import EvaluationsBehind, Measurement, Selection, identity, paper_scales
from mars.provenance.stage import Job, Spec, Stage

EXAMPLE_CAPTION = (
    "One GSM8K answer of MARS B=4 at tau = 0.95. Tokens accepted in the same forward are shaded "
    "together, in two shades by turns; ↵ is a new line and ■ the token that ends the answer."
)


# --- Figure 1 -----------------------------------------------------------------------------------


class ExampleSpec(Spec):
    """The model, setting and benchmark of which Figure 1 shows an answer."""

    model: str
    block_size: int | None
    setting: str
    decoding: Setting
    benchmark: str
    task: Benchmark
    evaluation: Evaluation
    generated_data: bool


def example(experiment: Experiment) -> ExampleSpec:
    """One answer of the paper's small MARS model to GSM8K at the tau of Table 4."""
    published = Setting.model_validate({"threshold": 0.95})
    for model in small_mars_models(experiment):
        for setting, benchmarks in experiment.evaluations_of(model).items():
            for benchmark in benchmarks:
                decoding, task = experiment.settings[setting], experiment.benchmarks[benchmark]
                if decoding == published and task.title == "GSM8K":
                    return ExampleSpec(
                        model=model,
                        block_size=experiment.models[model].block_size,
                        setting=setting,
                        decoding=decoding,
                        benchmark=benchmark,
                        task=task,
                        evaluation=experiment.evaluation,
                        generated_data=experiment.generated,
                    )
    raise UserError(
        "figure1 shows MARS B=4 for 0.5B at tau 0.95 on GSM8K, which this experiment does not "
        "evaluate; add it to `evaluate` or take figure1 out of `artefacts`."
    )


def example_inputs(experiment: Experiment) -> list[str]:
    """The checkpoint, its evaluations, the questions."""
    shown = example(experiment)
    return [
        f"checkpoints/{shown.model}/manifest.json",
        f"evaluations/{shown.model}/manifest.json",
        *data_manifests(experiment, [shown.task.dataset]),
    ]


def draw_example(spec: ExampleSpec, job: Job) -> list[Path]:
    """Draw Figure 1. Samples do not say which tokens came together: one is decoded anew."""
    from mars.paper.figures import generation
    from mars.paper.figures.decoded_example import decode_example

    inputs = job.inputs
    folders = inputs.folder("checkpoints"), inputs.folder("evaluations"), inputs.hub
    return generation.draw(decode_example(spec, *folders), EXAMPLE_CAPTION, job.output)


FIGURE_1 = Stage("figure1", ExampleSpec, example, draw_example, example_inputs, rule="figure")

# --- Figures 3 and 6 ----------------------------------------------------------------------------


def small_mars_models(experiment: Experiment) -> list[str]:
    """The evaluated MARS models with B = 4 and SFT loss that stand for the paper's 0.5B."""
    return [
        name
        for name in _published_training(experiment)
        if (model := experiment.models[name]).method == "mars"
        and model.block_size == 4
        and model.ar_weight > 0
        and experiment.scales[model.scale].stands_for == "0.5B"
    ]


def pareto_models(experiment: Experiment) -> list[str]:
    """The evaluated AR SFT models of one stage's length, and all MARS models."""
    models = {name: experiment.models[name] for name in _published_training(experiment)}
    return [
        *(n for n, model in models.items() if (model.method, model.epochs_factor) == ("ar_sft", 1)),
        *(n for n, model in models.items() if model.method == "mars"),
    ]


def _published_training(experiment: Experiment) -> list[str]:
    """The evaluated models that were not trained with the authors' 1/t weights."""
    return [
        name
        for name in experiment.evaluated_models()
        if not experiment.training_of(name).inverse_t_weighting
    ]


def figure3(experiment: Experiment) -> Selection:
    """Sweeps of every MARS model beside the AR SFT models that they start from."""
    return _swept(experiment, pareto_models(experiment), ("GSM8K", "HumanEval"))


def figure6(experiment: Experiment) -> Selection:
    """All acceptance metrics of one model."""
    return _swept(experiment, small_mars_models(experiment), ("GSM8K",))


def _swept(experiment: Experiment, models: list[str], titles: Iterable[str]) -> Selection:
    """What places the evaluation records of some models in a figure."""
    if not models:
        raise UserError(
            f"{experiment.experiment} evaluates no model that the figure is about; add one to "
            "`evaluate` or take the figure out of `artefacts`."
        )
    used = {name for model in models for name in experiment.evaluations_of(model)}
    return Selection(
        scales=paper_scales(experiment, (experiment.models[name].scale for name in models)),
        models={name: identity(experiment, name) for name in models},
        benchmarks={k: one for k, one in experiment.benchmarks.items() if one.title in titles},
        settings={name: one for name, one in experiment.settings.items() if name in used},
    )


def draw_figure3(spec: Selection, job: Job) -> list[Path]:
    """Draw Figure 3, speed and quality, the paper's curves below ours."""
    from mars.paper.figures import pareto

    records = Evaluations.read(spec, job.inputs.folders("evaluations")).records
    return pareto.draw(spec, records, job.output)


def draw_figure6(spec: Selection, job: Job) -> list[Path]:
    """Draw Figure 6, the acceptance metrics."""
    from mars.paper.figures import acceptance

    records = Evaluations.read(spec, job.inputs.folders("evaluations")).records
    return acceptance.draw(spec, records, job.output)


FIGURE_3 = Stage(
    "figure3", Selection, figure3, draw_figure3, EvaluationsBehind(figure3), rule="figure"
)
FIGURE_6 = Stage(
    "figure6", Selection, figure6, draw_figure6, EvaluationsBehind(figure6), rule="figure"
)

# --- what the input files say all of ------------------------------------------------------------


class NothingSpec(Spec):
    """Of a figure whose input files say all."""


def nothing(experiment: Experiment) -> NothingSpec:
    """The same for every experiment."""
    return NothingSpec()


def draw_heat_map(spec: NothingSpec, job: Job) -> list[Path]:
    """Draw the speed-up of the block cache over AR decoding."""
    from mars.paper.figures import heat_map

    return heat_map.draw(job.inputs.folder("speed") / "summary.csv", job.output)


def draw_live_tau(spec: NothingSpec, job: Job) -> list[Path]:
    """Draw tau as a live knob."""
    from mars.paper.figures import live_tau

    return live_tau.draw(job.inputs.folder("speed"), job.output)


HEAT_MAP = Stage(
    "heat_map", NothingSpec, nothing, draw_heat_map, Measurement("wall_clock"), rule="figure"
)
LIVE_TAU = Stage(
    "live_tau", NothingSpec, nothing, draw_live_tau, Measurement("live_tau"), rule="figure"
)


class CurvesSpec(Spec):
    """The trained models, in the order of the legend."""

    models: list[str]


def curves(experiment: Experiment) -> CurvesSpec:
    """Every model that is trained here, bases included."""
    return CurvesSpec(models=experiment.trained_models())


def curves_inputs(experiment: Experiment) -> list[str]:
    """The checkpoints, beside which their training wrote its losses."""
    return [f"checkpoints/{name}/manifest.json" for name in experiment.trained_models()]


def draw_curves(spec: CurvesSpec, job: Job) -> list[Path]:
    """Draw the training losses of all models."""
    from mars.paper.figures.training_curves import plot_curves

    folders = job.inputs.folders("checkpoints")
    outputs = [job.output / f"training_curves.{suffix}" for suffix in ("pdf", "png")]
    plot_curves({name: folders[name] / "training.jsonl" for name in spec.models}, outputs)
    return outputs


CURVES = Stage("training_curves", CurvesSpec, curves, draw_curves, curves_inputs, rule="figure")
