"""The figures: what they see of an experiment, what they are drawn from, and by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mars.config.experiment import Benchmark, Evaluation, Experiment, Setting
from mars.data.stage import data_manifests
from mars.errors import UserError
from mars.paper.evaluations import Evaluations
from mars.paper.specs import (
    Artefact,
    EvaluationsBehind,
    Measurement,
    Selection,
    identities,
    paper_scales,
    reported_models,
)
from mars.provenance.files import read_json, read_jsonl
from mars.provenance.stage import Job, Spec, Stage

# --- Figure 1 -----------------------------------------------------------------------------------

EXAMPLE_CAPTION = (
    "One answer of MARS B=4 to a GSM8K question at tau = 0.95. Tokens accepted in the same forward "
    "share a shade; the two shades alternate. ↵ is a new line, ■ the token that ends the answer."
)


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
    made = [f"{kind}/{shown.model}/manifest.json" for kind in ("checkpoints", "evaluations")]
    return [*made, *data_manifests(experiment, [shown.task.dataset])]


def draw_example(spec: ExampleSpec, job: Job) -> list[Path]:
    """Figure 1. Samples do not say which tokens came together: one is decoded anew."""
    from mars.paper.figures import generation
    from mars.paper.figures.decoded_example import decode_example

    inputs = job.inputs
    folders = inputs.folder("checkpoints"), inputs.folder("evaluations"), inputs.hub
    return generation.draw(decode_example(spec, *folders), EXAMPLE_CAPTION, job.output)


# --- Figures 3 and 6 ----------------------------------------------------------------------------


def small_mars_models(experiment: Experiment) -> list[str]:
    """The evaluated MARS models with B = 4 and SFT loss that stand for the paper's 0.5B."""
    return [
        name
        for name in _one_stage(experiment, "mars")
        if (model := experiment.models[name]).block_size == 4
        and model.ar_weight > 0
        and experiment.scales[model.scale].stands_for == "0.5B"
    ]


def _published_training(experiment: Experiment, method: str) -> list[str]:
    """The evaluated models of a method that were not trained with the authors' 1/t weights."""
    return [
        name
        for name in experiment.evaluated_models()
        if experiment.models[name].method == method
        and not experiment.training_of(name).inverse_t_weighting
    ]


def _one_stage(experiment: Experiment, method: str) -> list[str]:
    """Those of them that were trained as long as the paper's, neither longer nor shorter."""
    models = _published_training(experiment, method)
    return [name for name in models if experiment.models[name].epochs_factor == 1]


def figure3(experiment: Experiment) -> Selection:
    """Sweeps of the MARS models, and the AR SFT models that they start from."""
    models = [name for method in ("ar_sft", "mars") for name in _one_stage(experiment, method)]
    return _swept(experiment, models, ("GSM8K", "HumanEval"))


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
        models=identities(experiment, models),
        benchmarks={k: one for k, one in experiment.benchmarks.items() if one.title in titles},
        settings={name: one for name, one in experiment.settings.items() if name in used},
    )


def draw_figure3(spec: Selection, job: Job) -> list[Path]:
    from mars.paper.figures import pareto

    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return pareto.draw(evaluations, job.output)


def draw_figure6(spec: Selection, job: Job) -> list[Path]:
    from mars.paper.figures import acceptance

    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return acceptance.draw(evaluations, job.output)


# --- MARS against longer AR SFT -----------------------------------------------------------------


class ComputeSpec(Selection):
    """The AR SFT and MARS models, and which each was trained from."""

    parents: dict[str, str | None]


def compute(experiment: Experiment) -> ComputeSpec:
    """The evaluated models that were trained here, in one-token mode."""
    trained = set(experiment.trained_models())
    models = [*_published_training(experiment, "ar_sft"), *_published_training(experiment, "mars")]
    shown = [name for name in models if name in trained and experiment.models[name].ar_weight > 0]
    swept = _swept(experiment, shown, [one.title for one in experiment.benchmarks.values()])
    plain = {name: one for name, one in experiment.settings.items() if one.plain}
    parents = {name: experiment.models[name].parent for name in experiment.trained_models()}
    return ComputeSpec(**{**dict(swept), "settings": plain}, parents=parents)


def compute_inputs(experiment: Experiment) -> list[str]:
    """Evaluations of the models, records of their trainings and of those before."""
    spec = compute(experiment)
    chains = {one for name in spec.models for one in _fine_tunings(name, spec.parents)}
    evaluated = [f"evaluations/{name}/manifest.json" for name in sorted(spec.models)]
    return [*evaluated, *(f"provenance/train/{name}.json" for name in sorted(chains))]


def _fine_tunings(model: str, parents: Mapping[str, str | None]) -> list[str]:
    """A model and those that it comes from, up to the base model."""
    chain = []
    name: str | None = model
    while name is not None and parents.get(name) is not None:
        chain.append(name)
        name = parents[name]
    return chain


def draw_compute(spec: ComputeSpec, job: Job) -> list[Path]:
    from mars.paper.figures import compute as drawing

    records = {file.stem: read_json(file) for file in job.inputs.of("trainings")}
    tokens = {
        name: float(
            sum(records[one]["facts"]["tokens"] for one in _fine_tunings(name, spec.parents))
        )
        for name in spec.models
    }
    evaluations = Evaluations.read(spec, job.inputs.folders("evaluations"))
    return drawing.draw(evaluations, tokens, job.output)


# --- what masks predict -------------------------------------------------------------------------


class MasksSpec(Spec):
    """The block size of every model that is probed."""

    block_sizes: dict[str, int]


def masks(experiment: Experiment) -> MasksSpec:
    """The models of the section `probe`, each with all its seeds."""
    names = experiment.probe.models if experiment.probe else []
    sizes = {name: experiment.models[name].block_size for name in names}
    return MasksSpec(block_sizes={name: size for name, size in sizes.items() if size is not None})


def masks_inputs(experiment: Experiment) -> list[str]:
    """What was found at each model's masks, and how long it was trained."""
    names = masks(experiment).block_sizes
    probed = [f"probes/{name}/manifest.json" for name in names]
    return [*probed, *(f"provenance/train/{name}.json" for name in names)]


def draw_masks(spec: MasksSpec, job: Job) -> list[Path]:
    from mars.paper.figures import masks as drawing

    steps = {file.stem: read_json(file)["facts"]["steps"] for file in job.inputs.of("trainings")}
    probed = [
        drawing.Probed(name, spec.block_sizes[name], steps[name], read_jsonl(file / "places.jsonl"))
        for name, file in job.inputs.folders("probes").items()
    ]
    return drawing.draw(probed, job.output)


# --- what the input files say all of ------------------------------------------------------------


def nothing(experiment: Experiment) -> Spec:
    """Of a figure whose input files say all."""
    return Spec()


def draw_heat_map(spec: Spec, job: Job) -> list[Path]:
    from mars.paper.figures import heat_map

    return heat_map.draw(job.inputs.folder("speed") / "summary.csv", job.output)


def draw_live_tau(spec: Spec, job: Job) -> list[Path]:
    from mars.paper.figures import live_tau

    return live_tau.draw(job.inputs.folder("speed"), job.output)


class CurvesSpec(Spec):
    """The trained models that are reported, bases included, in the order of the legend; each with
    all its seeds."""

    models: list[list[str]]


def curves(experiment: Experiment) -> CurvesSpec:
    seeds: dict[str, list[str]] = {}
    for name in reported_models(experiment):
        seeds.setdefault(experiment.models[name].seed_of or name, []).append(name)
    return CurvesSpec(models=list(seeds.values()))


def curves_inputs(experiment: Experiment) -> list[str]:
    return [f"checkpoints/{name}/manifest.json" for name in reported_models(experiment)]


def draw_curves(spec: CurvesSpec, job: Job) -> list[Path]:
    """Training wrote its losses beside the checkpoints."""
    from mars.paper.figures.training_curves import plot_curves

    folders = job.inputs.folders("checkpoints")
    outputs = [job.output / f"training_curves.{suffix}" for suffix in ("pdf", "png")]
    logs = {seeds[0]: [folders[name] / "training.jsonl" for name in seeds] for seeds in spec.models}
    plot_curves(logs, outputs)
    return outputs


# --- the registry: no call but of classes, for a call would count as code of every figure --------

FIGURES = (
    Artefact(
        Stage("figure1", ExampleSpec, example, draw_example, example_inputs, "figure"),
        title="Figure 1: tokens accepted together",
        caption=EXAMPLE_CAPTION,
    ),
    Artefact(
        Stage("figure3", Selection, figure3, draw_figure3, EvaluationsBehind(figure3), "figure"),
        title="Figure 3: speed and quality",
        caption="Speed and quality: accuracy (%) against tokens per forward on GSM8K and HumanEval "
        "as tau falls from left to right. Solid: MARS; dashed: MARS without SFT loss; dotted: AR "
        "SFT. Upper row: this experiment, with bars of one standard error; lower row: the paper "
        "(Table 8).",
    ),
    Artefact(
        Stage("figure6", Selection, figure6, draw_figure6, EvaluationsBehind(figure6), "figure"),
        title="Figure 6: acceptance metrics",
        caption="Acceptance metrics: accuracy (%) against tokens per forward on GSM8K for MARS B=4 "
        "at the small scale, as the threshold of each metric is loosened from left to right. Bars "
        "are one standard error. The paper shows this only as a plot, so there are no published "
        "numbers to compare with.",
    ),
    Artefact(
        Stage("compute", ComputeSpec, compute, draw_compute, compute_inputs, "figure"),
        title="MARS and longer AR SFT",
        caption="Average accuracy (%) in one-token mode against the tokens that fine-tuning has "
        "read, in both streams and in all stages after the base model. Bars are 95 % intervals "
        "over questions and, where a model was trained several times, over trainings; dashes are "
        "single trainings.",
    ),
    Artefact(
        Stage("masks", MasksSpec, masks, draw_masks, masks_inputs, "figure"),
        title="What masks predict",
        caption="Each place of the decoding window, by block size B and steps of training by MARS: "
        "how often (%) it predicts the token that the model writes one token at a time, and how "
        "sure of its prediction it is (%, mean probability). Place 1 is the last known token, the "
        "others are masks; windows start at every token of the model's own answers. Bars are 95 % "
        "intervals over questions.",
        needs="probe",
    ),
    Artefact(
        Stage("heat_map", Spec, nothing, draw_heat_map, Measurement("wall_clock"), "figure"),
        title="Block cache: heat map",
        caption="Tokens per second relative to autoregressive decoding of the same batch, by "
        "method and batch size; 1 (white) is the speed of AR. The number after a block cache is "
        "the size of its blocks in tokens.",
        needs="speed.wall_clock",
    ),
    Artefact(
        Stage("live_tau", Spec, nothing, draw_live_tau, Measurement("live_tau"), "figure"),
        title="tau as a live knob",
        caption="Changing tau while requests are served: arrivals per second, requests waiting, "
        "tau, and the share of requests answered within a given time (legend: median and 95th "
        "percentile), with tau fixed at 1, fixed at a low value, and adapted to the length of the "
        "queue.",
        needs="speed.live_tau",
    ),
    Artefact(
        Stage("training_curves", CurvesSpec, curves, draw_curves, curves_inputs, "figure"),
        title="Training losses",
        caption="Loss of every training stage by optimiser step. Thick lines are smoothed, thin "
        "lines are single steps.",
        listed=False,
    ),
)
