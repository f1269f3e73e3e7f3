"""What the tables and figures are, and see of an experiment: typed, and no more than they show.

What is left out here can change without making an artefact anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mars.config.experiment import Benchmark, Data, Experiment, Model, Setting
from mars.provenance.stage import Spec, Stage

OPENED = {"table": ("csv", "md", "tex"), "figure": ("pdf", "png")}
"""Suffixes of the files that people open, by kind of artefact."""


@dataclass(frozen=True)
class Artefact:
    """A table or figure: the stage that makes it, and what readers are told.

    Attributes:
        title: on the page.
        compared: the number of the paper's table that its cells are compared with.
        needs: the section of the configuration whose measurement it shows, as `speed.wall_clock`.
        from_evaluations: whether its cells can be derived from evaluation records.
        listed: whether the configuration lists it; else it is made when there is what it shows.
    """

    stage: Stage[Any]
    title: str
    caption: str
    compared: int | None = None
    needs: str | None = None
    from_evaluations: bool = False
    listed: bool = True

    @property
    def name(self) -> str:
        """Of its files, and in the configuration."""
        return self.stage.name

    @property
    def kind(self) -> str:
        """``table`` or ``figure``: the rule that makes it, and its folder but for an s."""
        return self.stage.rule

    @property
    def files(self) -> list[str]:
        """The files that people open, relative to the folder of results."""
        return [f"{self.kind}s/{self.name}.{suffix}" for suffix in OPENED[self.kind]]


class BaseOrigin(Spec):
    """Where a scale's base model comes from; none of its names: it was trained from scratch."""

    source: str
    repository: str | None = None
    package: str | None = None

    @property
    def name(self) -> str | None:
        return self.repository or self.package


class PaperScale(Spec):
    """A scale of the experiment, and that of the paper which it stands for."""

    stands_for: str
    base: BaseOrigin


class ModelIdentity(Spec):
    """What a model is.

    Attributes:
        released: the repository, if the authors' checkpoint was taken.
        seed_of: the model of which this is a training with another seed.
    """

    scale: str
    method: str
    block_size: int | None = None
    ar_weight: float = 1.0
    right_shift: bool = True
    epochs_factor: float = 1
    inverse_t_weighting: bool = False
    released: str | None = None
    seed_of: str | None = None


def seeds_of(model: str, models: Mapping[str, ModelIdentity | Model]) -> list[str]:
    """The trainings of a model, one for each of its seeds that is here, itself first."""
    return [model, *(name for name, one in models.items() if one.seed_of == model)]


class Selection(Spec):
    """The models, settings and benchmarks that some rows or curves are about."""

    scales: dict[str, PaperScale]
    models: dict[str, ModelIdentity]
    benchmarks: dict[str, Benchmark]
    settings: dict[str, Setting]


class TableSpec(Selection):
    """Of a table of evaluations: what its rows are about, and what the models were trained on."""

    data: Data


class ClaimsSpec(TableSpec):
    """What the claims are about; ``cache_block``: the B_cache that claim 5 is judged by."""

    cache_block: int | None = None


class ComparisonSpec(Spec):
    """Which tables are compared with the paper's, and how ours may be.

    Attributes:
        tables: the number of each table that the paper prints, by name of ours.
        same_models: by scale of the paper, whether ours started from its base model and data.
        titles: the benchmarks that an average is over.
        same_weights: our models that are the paper's own, not trained again: the checkpoints that
            the authors released, and base models.
    """

    tables: dict[str, int]
    scales: dict[str, PaperScale]
    same_models: dict[str, bool]
    titles: list[str]
    same_weights: list[str]


class Shown(Spec):
    """An artefact on the page, or said there to be not run.

    ``from_evaluations``: whether questions are behind its cells.
    """

    name: str
    kind: str
    title: str
    caption: str
    from_evaluations: bool = False


class Answered(Spec):
    """What the address of the questions behind a cell is made of.

    Attributes:
        benchmarks: their names by title.
        trainings: of each model that was trained several times.
        one_token: the setting from which a change of accuracy counts.
    """

    benchmarks: dict[str, str]
    trainings: dict[str, list[str]]
    one_token: str

    def trainings_of(self, model: str) -> list[str]:
        """All trainings of a model, itself first."""
        return self.trainings.get(model, [model])


class ReportSpec(Spec):
    """What the page says of an experiment, beside its results."""

    experiment: str
    description: str
    scales: dict[str, PaperScale]
    artefacts: list[Shown]
    answered: Answered


def paper_scales(
    experiment: Experiment, names: Iterable[str] | None = None
) -> dict[str, PaperScale]:
    """The scales of these names; default all."""
    wanted = set(experiment.scales if names is None else names)
    return {
        name: PaperScale(
            stands_for=scale.stands_for,
            base=BaseOrigin(**scale.base.model_dump(include={*BaseOrigin.model_fields})),
        )
        for name, scale in experiment.scales.items()
        if name in wanted
    }


def _epochs_factor(experiment: Experiment, name: str) -> float:
    """Stages that a model was trained for by its method; those of AR SFT in a row count as one."""
    model = experiment.models[name]
    before = model.parent if model.method == "ar_sft" else None
    longer = before is not None and experiment.models[before].method == "ar_sft"
    return model.epochs_factor + (_epochs_factor(experiment, before) if longer and before else 0)


def reported_models(experiment: Experiment) -> list[str]:
    """The models trained here that are evaluated, or that such a model comes from.

    Others, such as the short trainings of a probe, have no row in a table of trainings.
    """
    reported: set[str] = set()
    for evaluated in experiment.evaluated_models():
        name: str | None = evaluated
        while name is not None:
            reported.add(name)
            name = experiment.models[name].parent
    return [name for name in experiment.trained_models() if name in reported]


def identities(experiment: Experiment, names: Iterable[str]) -> dict[str, ModelIdentity]:
    """What these models of the experiment are."""
    found = {}
    for name in names:
        model = experiment.models[name]
        taken = model.released if model.source == "released" else None
        found[name] = ModelIdentity(
            **model.model_dump(
                include={
                    *("scale", "method", "block_size"),
                    *("ar_weight", "right_shift", "seed_of"),
                }
            ),
            epochs_factor=_epochs_factor(experiment, name),
            inverse_t_weighting=experiment.training_of(name).inverse_t_weighting,
            released=taken.repository if taken else None,
        )
    return found


@dataclass(frozen=True)
class EvaluationsBehind:
    """Inputs of a stage: the evaluations of the models in its spec."""

    resolve: Callable[[Experiment], Selection]

    def __call__(self, experiment: Experiment) -> list[str]:
        models = sorted(self.resolve(experiment).models)
        return [f"evaluations/{name}/manifest.json" for name in models]


@dataclass(frozen=True)
class Measurement:
    """Inputs of a stage: what was timed for a part of the section `speed`."""

    part: str

    def __call__(self, experiment: Experiment) -> list[str]:
        return [f"speed/{self.part}/manifest.json"]
