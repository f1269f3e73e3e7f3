"""A trained checkpoint as a repository of the hub, which shows its scores and how they were made.

The hub reads the scores of a model from ``.eval_results/*.yaml`` and, in the older format, from
``model-index`` in the card. Both get real benchmarks only, asked in full: a score on a miniature,
or on the first N questions, would stand there as one of the benchmark itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from mars.config.experiment import Benchmark, Experiment, HubBase, HubData, Setting
from mars.errors import UserError
from mars.evaluation.scores import Score, headline, tokens_per_forward
from mars.provenance.files import read_json
from mars.provenance.manifest import NAME as MANIFEST
from mars.provenance.manifest import new_folder

ENTRIES = ".eval_results"
TASK = "text-generation"


class Scored(NamedTuple):
    """The score of a checkpoint on one benchmark under one setting; 1 is 100 %."""

    setting: Setting
    benchmark: Benchmark
    score: Score
    tokens_per_forward: float
    record: dict[str, Any]

    @property
    def decoding(self) -> str:
        """How the answers were decoded, as people read it."""
        tau = self.setting.threshold
        if tau is None:
            return "one token per forward"
        return f"tau = {tau:g}, {self.tokens_per_forward:.2f} tokens per forward"

    @property
    def notes(self) -> str:
        shots = self.benchmark.num_fewshot
        task = f"lm-eval {self.record['versions']['lm_eval']}, task {self.record['task']}"
        return f"{self.decoding}; {shots}-shot, {task}"


def export_for_hub(experiment: Experiment, model: str, results: Path, output: Path) -> list[str]:
    """Write ``output``, a checkpoint with a card and its scores; what is said of them, by sentence.

    Args:
        results: the folder of the experiment.

    Raises:
        UserError: there is no such model, or its checkpoint is not here.
    """
    if model not in experiment.models:
        known = ", ".join(experiment.models)
        raise UserError(f"{experiment.experiment} has no model {model!r}; it has {known}.")
    checkpoint = results / "checkpoints" / model
    if not (checkpoint / MANIFEST).is_file():
        raise UserError(f"{checkpoint} is not here; run the experiment, or `make pull` it.")
    found = list(scores(experiment, model, results / "evaluations" / model))
    real = [one for one in found if not experiment.generated and one.benchmark.limit is None]
    said = _said(experiment, found, real)
    with new_folder(output) as folder:
        ignored = shutil.ignore_patterns(MANIFEST)
        shutil.copytree(checkpoint, folder, ignore=ignored, dirs_exist_ok=True)
        text = (checkpoint / "README.md").read_text() if (checkpoint / "README.md").exists() else ""
        card = _card_data(experiment, model, real)
        body = f"---\n{card.to_yaml()}\n---\n\n{text.rstrip()}\n{_section(found, said)}"
        ModelCard(body).save(folder / "README.md")
        for title in dict.fromkeys(one.benchmark.title for one in real):
            entries = [_entry(one) for one in real if one.benchmark.title == title]
            file = folder / ENTRIES / f"{title.lower()}.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    return said


def scores(experiment: Experiment, model: str, evaluations: Path) -> Iterator[Scored]:
    """What a model scored token by token and with tau alone, in the experiment's order."""
    for name, benchmarks in experiment.evaluations_of(model).items():
        setting = experiment.settings[name]
        if not setting.model_copy(update={"threshold": None}).plain:
            continue
        for key in benchmarks:
            file = evaluations / name / f"{key}.json"
            if file.is_file():
                record, benchmark = read_json(file), experiment.benchmarks[key]
                speed = tokens_per_forward(record).value
                yield Scored(setting, benchmark, headline(record, benchmark), speed, record)


def _said(experiment: Experiment, found: list[Scored], real: list[Scored]) -> list[str]:
    if not found:
        return ["This checkpoint has not been evaluated."]
    if experiment.generated:
        return [
            "The benchmarks are miniatures that the pipeline generated in the style of the real "
            f"ones, so no score is written to `{ENTRIES}` or `model-index`."
        ]
    said = []
    if cut := list(dict.fromkeys(one.benchmark.title for one in found if one not in real)):
        said.append(
            f"Of {', '.join(cut)} only the first questions were asked; these scores are not "
            f"written to `{ENTRIES}` or `model-index`."
        )
    return said


def _card_data(experiment: Experiment, model: str, real: list[Scored]) -> ModelCardData:
    entry = experiment.models[model]
    base = experiment.scales[entry.scale].base
    trained_on_hub = entry.parent is not None and isinstance(experiment.data, HubData)
    return ModelCardData(
        model_name=model,
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=base.repository if isinstance(base, HubBase) else None,
        datasets=[experiment.data.dataset] if trained_on_hub else None,  # type: ignore[union-attr]
        tags=[entry.method, "arxiv:2604.07023"],
        eval_results=[_result(one) for one in real] or None,
    )


def _entry(one: Scored) -> EvalResultEntry:
    return EvalResultEntry(
        dataset_id=one.benchmark.dataset,
        task_id=one.record["task"],
        value=round(100 * one.score.value, 2),
        dataset_revision=one.record["dataset"]["revision"],
        notes=one.notes,
    )


def _result(one: Scored) -> EvalResult:
    return EvalResult(
        task_type=TASK,
        dataset_type=one.benchmark.dataset,
        dataset_name=one.benchmark.title,
        dataset_revision=one.record["dataset"]["revision"],
        metric_type=one.benchmark.metric,
        metric_name=f"{one.benchmark.metric} (%), {one.decoding}",
        metric_value=round(100 * one.score.value, 2),
    )


def _section(found: list[Scored], said: list[str]) -> str:
    """The scores as people read them."""
    lines = ["", "## Scores", "", *said]
    if found:
        lines += ["", "| benchmark | questions | decoding | score, % |", "|---|---|---|---|"]
        for one in found:
            error = "" if one.score.stderr is None else f" ± {100 * one.score.stderr:.1f}"
            score = f"{100 * one.score.value:.1f}{error}"
            cells = (one.benchmark.title, one.record["documents"], one.decoding, score)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", "± is one standard error over questions."]
    return "\n".join(lines) + "\n"
