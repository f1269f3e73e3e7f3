"""What each stage of the workflow depends on: its part of the configuration, and its code.

A stage's spec is one canonical JSON string. Snakemake compares it with that of the last run (each
rule has it as its only parameter) and the stage reads everything it needs from it, so what decides
over a rerun and what the stage sees cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mars.config.experiment import (
    Experiment,
    GeneratedData,
    HubBase,
    HubData,
    ScratchBase,
    Setting,
    Speed,
)
from mars.errors import UserError
from mars.provenance.files import canonical_json, sha256_file, sha256_text
from mars.provenance.fingerprint import PACKAGE, code_fingerprint, module_hashes

if TYPE_CHECKING:
    from mars.paper.published import Row

LOCK = PACKAGE.parent / "requirements.lock"
# The packages whose versions can change a result; the rest of the lock reruns nothing.
NUMERIC_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "lm-eval",
    "accelerate",
    "numpy",
)


def spec(experiment: Experiment, stage: str, **target: Any) -> str:
    """The spec of one stage, e.g. ``spec(experiment, "train", model="mars-b4-small")``."""
    if stage not in _STAGES:
        raise UserError(f"there is no stage {stage!r}; the stages are {', '.join(_STAGES)}.")
    modules, resolve = _STAGES[stage]
    return canonical_json(
        {
            "stage": stage,
            **target,
            "config": resolve(experiment, **target),
            "code": code_fingerprint(modules),
            "lock": _lock_hash(),
        }
    )


def cell_spec(
    plan: Mapping[str, Any], inputs: Mapping[str, str], setting: str, benchmark: str
) -> dict[str, Any]:
    """What one cell of an evaluation depends on: a change elsewhere in the plan keeps the cell.

    Args:
        plan: spec of the stage "evaluate".
        inputs: sha256 of the stage's input files, by path.
        setting, benchmark: the cell, by the experiment's names.
    """
    config = plan["config"]
    return {
        **{key: plan[key] for key in ("model", "code", "lock")},
        **{key: config[key] for key in ("method", "block_size", "evaluation", "generated_data")},
        "setting": config["settings"][setting],
        "benchmark": config["benchmarks"][benchmark],
        "inputs": dict(inputs),
    }


def stage_modules(stage: str) -> dict[str, str]:
    """Hashes of the modules a stage can run, by dotted name; their fingerprint is its ``code``."""
    return module_hashes(_STAGES[stage][0]) if stage in _STAGES else {}


def locked_versions() -> dict[str, str]:
    """The locked version of each package that can change a result; none without a lock."""
    if not LOCK.is_file():
        return {}
    pins = (line.strip().partition("==") for line in LOCK.read_text().splitlines())
    return {name: version for name, _, version in pins if name.lower() in NUMERIC_PACKAGES}


def datasets_of(experiment: Experiment) -> dict[str, str | None]:
    """Repositories of the experiment's data sets, with their revisions."""
    found = {item.dataset: item.revision for item in experiment.benchmarks.values()}
    if isinstance(experiment.data, HubData):
        found[experiment.data.dataset] = experiment.data.revision
    return found


def repositories_of(experiment: Experiment) -> list[dict[str, Any]]:
    """What `mars fetch` brings: the models and data sets of the hub that the experiment uses.

    Each with ``repository``, ``kind``, ``revision``, and ``benchmark`` where it is for one.
    """
    found: dict[str, dict[str, Any]] = {}

    def add(kind: str, repository: str, revision: str | None, benchmark: str | None = None) -> None:
        item = {"repository": repository, "revision": revision, "benchmark": benchmark}
        found.setdefault(repository, {"kind": kind, **item})

    for entry in experiment.models.values():
        base = experiment.scales[entry.scale].base
        if entry.source == "released" and entry.released is not None:
            add("model", entry.released.repository, entry.released.revision)
        elif entry.method == "base" and isinstance(base, HubBase):
            add("model", base.repository, base.revision)
    if isinstance(experiment.data, HubData):
        for name, item in experiment.benchmarks.items():
            add("dataset", item.dataset, item.revision, name)
        if trained_models(experiment):
            add("dataset", experiment.data.dataset, experiment.data.revision)
    return list(found.values())


def _generate_data(experiment: Experiment) -> dict[str, Any]:
    if not isinstance(experiment.data, GeneratedData):
        raise UserError(f"{experiment.experiment} has no generated data; nothing to generate.")
    return _plain(experiment.data)


def _fetch_dataset(experiment: Experiment, repository: str) -> dict[str, Any]:
    return {"repository": repository, "revision": datasets_of(experiment)[repository]}


def _train_tokenizer(experiment: Experiment) -> dict[str, Any]:
    return {"vocabulary": _plain(experiment.data)["vocabulary"]}


def _import_base(experiment: Experiment, model: str) -> dict[str, Any]:
    return _plain(experiment.scales[experiment.models[model].scale].base)


def _import_released(experiment: Experiment, model: str) -> dict[str, Any]:
    entry = experiment.models[model]
    if entry.source != "released" or entry.released is None:
        raise UserError(f"{model} is trained here; there is no released checkpoint to import.")
    return {**_plain(entry.released), "method": entry.method, "block_size": entry.block_size}


def _tokenize(experiment: Experiment, scale: str, kind: str) -> dict[str, Any]:
    """``kind``: "instructions" (chat format) or "documents" (plain text for pre-training)."""
    if isinstance(experiment.data, HubData):
        source = {
            "dataset": experiment.data.dataset,
            "configuration": experiment.data.configuration,
            "split": experiment.data.split,
            "limit": experiment.data.limit,
        }
    else:
        name = "mars-generated/instruct" if kind == "instructions" else "mars-generated/documents"
        source = {"dataset": name, "configuration": None, "split": "train", "limit": None}
    return {
        **source,
        "max_length": experiment.training.max_length,
        "seed": experiment.training.seed,
    }


def _train(experiment: Experiment, model: str) -> dict[str, Any]:
    if model not in trained_models(experiment):
        raise UserError(f"{model} is a ready checkpoint; it is imported, not trained.")
    entry = experiment.models[model]
    base = experiment.scales[entry.scale].base
    pretrains = entry.method == "base"
    architecture = None
    if pretrains and isinstance(base, ScratchBase):
        architecture = _plain(base.architecture)
    training = _plain(experiment.training_of(model))
    training.pop("checkpoint_minutes")  # when to save changes no result
    return {
        "method": "pretrain" if pretrains else entry.method,
        "block_size": entry.block_size,
        "ar_weight": entry.ar_weight if entry.method == "mars" else None,
        "architecture": architecture,
        "training": training,
    }


def _evaluate(experiment: Experiment, model: str) -> dict[str, Any]:
    entry = experiment.models[model]
    cells = experiment.evaluations_of(model)
    used = {benchmark for benchmarks in cells.values() for benchmark in benchmarks}
    benchmarks = {
        name: _plain(experiment.benchmarks[name]) | _task_files(experiment.benchmarks[name].task)
        for name in sorted(used)
    }
    return {
        "method": "block_diffusion" if entry.method == "block_diffusion" else None,
        "block_size": entry.block_size,
        "cells": cells,
        "benchmarks": benchmarks,
        "settings": {name: _plain(experiment.settings[name]) for name in cells},
        "evaluation": _plain(experiment.evaluation),
        "generated_data": isinstance(experiment.data, GeneratedData),
    }


def _task_files(task: str) -> dict[str, str]:
    """For a task given as a file: the hash of it and of what may belong to it in its folder."""
    if not task.endswith((".yaml", ".yml")):
        return {}
    suffixes = (".yaml", ".yml", ".py", ".jinja")
    files = sorted(file for file in Path(task).parent.glob("*") if file.suffix in suffixes)
    return {"task_sha256": sha256_text(canonical_json([[f.name, sha256_file(f)] for f in files]))}


def _table(experiment: Experiment, number: int) -> dict[str, Any]:
    from mars.paper.tables.evaluated import DECLARATIONS

    return _of_evaluations(experiment, DECLARATIONS[number].all_rows())


def _findings(experiment: Experiment) -> dict[str, Any]:
    from mars.paper.tables.findings import all_rows

    return _of_evaluations(experiment, all_rows())


def _comparison(experiment: Experiment) -> dict[str, Any]:
    from mars.paper.evaluations import benchmark_keys
    from mars.paper.tables.notes import is_of_the_paper

    plain = _for_paper(experiment)
    generated = isinstance(experiment.data, GeneratedData)
    scales = plain["scales"].values()
    return {
        "scales": plain["scales"],
        "same_models": {
            size: all(is_of_the_paper(s) for s in scales if s["stands_for"] == size)
            and not generated
            for size in sorted({scale["stands_for"] for scale in scales})
        },
        "titles": list(benchmark_keys(plain)),
    }


def _claims(experiment: Experiment) -> dict[str, Any]:
    from mars.paper.claims.claims import rows

    # The acceptance metrics are compared over all their thresholds.
    thresholds = {
        name: _plain(setting)
        for name, setting in experiment.settings.items()
        if setting.threshold is not None
    }
    config = _of_evaluations(experiment, rows())
    return {**config, "settings": {**config["settings"], **thresholds}}


def _of_evaluations(experiment: Experiment, rows: Sequence[Row]) -> dict[str, Any]:
    """What rows of evaluated models depend on."""
    from mars.paper.tables.evaluated import selection

    plain = _for_paper(experiment)
    evaluated = {name: plain["models"][name] for name in experiment.evaluated_models()}
    return selection(rows, {**plain, "models": evaluated})


def _hyperparameters(experiment: Experiment) -> dict[str, Any]:
    from mars.paper.evaluations import IDENTITY

    plain = _for_paper(experiment)
    models = {name: plain["models"][name] for name in trained_models(experiment)}
    return {
        "data": plain["data"],
        "scales": plain["scales"],
        "models": {name: {key: model[key] for key in IDENTITY} for name, model in models.items()},
        "evaluation": {"max_new_tokens": experiment.evaluation.max_new_tokens},
    }


def _for_paper(experiment: Experiment) -> dict[str, Any]:
    """What the paper's tables may depend on: what the models are, and how they decode."""
    base_keys = ("source", "repository", "package")
    return {
        "data": _plain(experiment.data),
        "scales": {
            name: {
                "stands_for": scale.stands_for,
                "base": {k: v for k, v in _plain(scale.base).items() if k in base_keys},
            }
            for name, scale in experiment.scales.items()
        },
        "models": {
            name: {
                **_plain(experiment.models[name]),
                "inverse_t_weighting": experiment.training_of(name).inverse_t_weighting,
            }
            for name in experiment.models
        },
        "benchmarks": {name: _plain(item) for name, item in experiment.benchmarks.items()},
        "settings": {name: _plain(item) for name, item in experiment.settings.items()},
    }


def _speed_sweep(experiment: Experiment) -> dict[str, Any]:
    speed, sweep = _timed(experiment, "wall_clock")
    return {
        **_timed_protocol(experiment, sweep.questions),
        "tau": speed.tau,
        **_plain_without(sweep, "model", "questions"),
    }


def _speculative(experiment: Experiment) -> dict[str, Any]:
    speed, speculative = _timed(experiment, "speculative")
    return {
        **_timed_protocol(experiment, speculative.questions),
        "tau": speed.tau,
        **_plain_without(speculative, "questions"),
    }


def _live_tau(experiment: Experiment) -> dict[str, Any]:
    speed, live_tau = _timed(experiment, "live_tau")
    return {
        **_timed_protocol(experiment, live_tau.questions),
        "high": speed.tau,
        **_plain_without(live_tau, "model", "questions"),
    }


def _speed_table(experiment: Experiment, number: int) -> dict[str, Any]:
    """Table 5 or 6: what the timed models are, and how readers know the questions."""
    part = {5: "wall_clock", 6: "speculative"}[number]
    speed, section = _timed(experiment, part)
    plain = _for_paper(experiment)
    names = [name for key, name in speed.models().items() if key.startswith(f"{part}.")]
    scales = {plain["models"][name]["scale"] for name in names}
    return {
        "data": plain["data"],
        "scales": {name: scale for name, scale in plain["scales"].items() if name in scales},
        "benchmark": experiment.benchmarks[speed.benchmark].title,
        "tau": speed.tau,
        "setting": _setting_name(experiment, speed.tau),
        "one_token": _setting_name(experiment, None),
        "models": {
            name: {
                "stands_for": experiment.scales[experiment.models[name].scale].stands_for,
                "method": experiment.models[name].method,
                "block_size": experiment.models[name].block_size,
            }
            for name in names
        },
        "pairs": _plain(section)["pairs"] if number == 6 else [],
    }


def _setting_name(experiment: Experiment, tau: float | None) -> str | None:
    """The experiment's name for decoding with this tau and nothing else."""
    wanted = Setting.model_validate({"threshold": tau})
    return next((name for name, item in experiment.settings.items() if item == wanted), None)


def _timed(experiment: Experiment, part: str) -> tuple[Speed, Any]:
    """The section `speed` and one of its parts."""
    section = experiment.speed and getattr(experiment.speed, part)
    if experiment.speed is None or section is None:
        raise UserError(f"{experiment.experiment} times nothing here: it has no `speed.{part}`.")
    return experiment.speed, section


def _timed_protocol(experiment: Experiment, count: int) -> dict[str, Any]:
    """The questions that are decoded under the clock, and how they are scored afterwards."""
    speed = experiment.speed
    assert speed is not None
    return {
        "precision": experiment.evaluation.precision,
        "asked": {
            "benchmark": _plain(experiment.benchmarks[speed.benchmark]),
            "setting": _plain(Setting.model_validate({"threshold": speed.tau})),
            "count": count,
            "max_new_tokens": speed.max_new_tokens,
            "generated_data": isinstance(experiment.data, GeneratedData),
        },
    }


def _plain_without(section: BaseModel, *keys: str) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(keys))


def _figure_1(experiment: Experiment) -> dict[str, Any]:
    """One answer of the paper's small MARS model to GSM8K at the tau of Table 4."""
    published = Setting.model_validate({"threshold": 0.95})
    for model in swept_models(experiment, "1"):
        for setting, benchmarks in experiment.evaluations_of(model).items():
            for benchmark in benchmarks:
                decoding, task = experiment.settings[setting], experiment.benchmarks[benchmark]
                if decoding == published and task.title == "GSM8K":
                    return {
                        "model": model,
                        "block_size": experiment.models[model].block_size,
                        "setting": setting,
                        "decoding": _plain(decoding),
                        "benchmark": benchmark,
                        "task": _plain(task),
                        "evaluation": _plain(experiment.evaluation),
                        "generated_data": isinstance(experiment.data, GeneratedData),
                    }
    raise UserError(
        "figure1 shows MARS B=4 for 0.5B at tau 0.95 on GSM8K, which this experiment does not "
        "evaluate; add it to `evaluate` or take figure1 out of `artefacts`."
    )


def _figure_3(experiment: Experiment) -> dict[str, Any]:
    """Sweeps of every MARS model beside the AR SFT models that they start from."""
    return _sweep(experiment, swept_models(experiment, "3"), ("GSM8K", "HumanEval"))


def _figure_6(experiment: Experiment) -> dict[str, Any]:
    return _sweep(experiment, swept_models(experiment, "6"), ("GSM8K",))


def _sweep(experiment: Experiment, models: list[str], titles: tuple[str, ...]) -> dict[str, Any]:
    """What places the evaluation records of some models in a figure."""
    if not models:
        raise UserError(
            f"{experiment.experiment} evaluates no model that the figure is about; add one to "
            "`evaluate` or take the figure out of `artefacts`."
        )
    settings = {name for model in models for name in experiment.evaluations_of(model)}
    return {
        "scales": {n: {"stands_for": s.stands_for} for n, s in experiment.scales.items()},
        "models": {name: _plain(experiment.models[name]) for name in models},
        "benchmarks": {
            name: _plain(item)
            for name, item in experiment.benchmarks.items()
            if item.title in titles
        },
        "settings": {n: _plain(s) for n, s in experiment.settings.items() if n in settings},
    }


def swept_models(experiment: Experiment, figure: str) -> list[str]:
    """The evaluated models that a figure is about; none trained with the authors' 1/t weights.

    Figure 3: MARS with and without SFT loss, and AR SFT of one stage's length. Figures 1 and 6:
    MARS with B = 4 and SFT loss where it stands for the paper's 0.5B.
    """
    models = {
        name: experiment.models[name]
        for name in experiment.evaluated_models()
        if not experiment.training_of(name).inverse_t_weighting
    }
    mars = [name for name, model in models.items() if model.method == "mars"]
    if figure == "3":
        started = [
            name
            for name, model in models.items()
            if model.method == "ar_sft" and model.epochs_factor == 1
        ]
        return [*started, *mars]
    return [
        name
        for name in mars
        if models[name].block_size == 4
        and models[name].ar_weight > 0
        and experiment.scales[models[name].scale].stands_for == "0.5B"
    ]


def _report(experiment: Experiment) -> dict[str, Any]:
    return {
        "experiment": experiment.experiment,
        "description": experiment.description,
        "scales": {name: _plain(scale) for name, scale in experiment.scales.items()},
    }


def _nothing(experiment: Experiment) -> dict[str, Any]:
    """For stages whose input files say all."""
    return {}


def _training_curves(experiment: Experiment) -> dict[str, Any]:
    return {"models": trained_models(experiment)}


def trained_models(experiment: Experiment) -> list[str]:
    """The models that a training stage makes, bases pre-trained here included."""
    return [
        name
        for name, entry in experiment.models.items()
        if entry.source == "train"
        and (entry.method != "base" or isinstance(experiment.scales[entry.scale].base, ScratchBase))
    ]


def released_models(experiment: Experiment) -> list[str]:
    """The models whose checkpoint is the one that the authors released."""
    return [name for name, entry in experiment.models.items() if entry.source == "released"]


_STAGES: dict[str, tuple[list[str], Callable[..., dict[str, Any]]]] = {
    "generate_data": (["mars.data.minibench.generate"], _generate_data),
    "fetch_dataset": (["mars.data.hub"], _fetch_dataset),
    "train_tokenizer": (["mars.data.tokenizer"], _train_tokenizer),
    "import_base": (["mars.checkpoints.base"], _import_base),
    "import_released": (["mars.checkpoints.released"], _import_released),
    "tokenize": (["mars.data.chat"], _tokenize),
    "train": (["mars.training"], _train),
    "evaluate": (["mars.evaluation.evaluate"], _evaluate),
    "table": (["mars.paper.tables.evaluated", "mars.paper.evaluations"], _table),
    "findings": (["mars.paper.tables.findings", "mars.paper.evaluations"], _findings),
    "hyperparameters": (["mars.paper.tables.hyperparameters"], _hyperparameters),
    "speed_sweep": (["mars.speed.wall_clock"], _speed_sweep),
    "speculative": (["mars.speed.speculative"], _speculative),
    "live_tau": (["mars.speed.live_tau"], _live_tau),
    "figure_1": (
        ["mars.paper.figures.decoded_example", "mars.paper.figures.generation"],
        _figure_1,
    ),
    "figure_3": (["mars.paper.figures.pareto", "mars.paper.evaluations"], _figure_3),
    "figure_6": (["mars.paper.figures.acceptance", "mars.paper.evaluations"], _figure_6),
    "figure_heat_map": (["mars.paper.figures.heat_map"], _nothing),
    "figure_live_tau": (["mars.paper.figures.live_tau"], _nothing),
    "comparison": (["mars.paper.claims.comparison"], _comparison),
    "claims": (
        ["mars.paper.claims.report", "mars.checkpoints.describe", "mars.paper.evaluations"],
        _claims,
    ),
    "speed_table": (["mars.paper.tables.wall_clock"], _speed_table),
    "report": (["mars.paper.report.page"], _report),
    "training_curves": (["mars.paper.figures.training_curves"], _training_curves),
}


def _plain(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(mode="json")


@cache
def _lock_hash() -> str:
    """Hash of the locked versions that can change a result."""
    pins = [f"{name}=={version}" for name, version in locked_versions().items()]
    return sha256_text("\n".join(sorted(pins))) if pins else "unlocked"
