"""Our numbers for a row of a table: which of our models it is, how it decodes, what it scored.

A row is found by what it is (scale, method, block size, loss, epochs; threshold, metric, method of
decoding), never by a name.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mars.config.experiment import Benchmark, Experiment, Setting
from mars.evaluation.scores import (
    Score,
    average,
    headline,
    mean_ratio,
    ratio,
    tokens_per_forward,
)
from mars.paper.published import AVERAGE, BENCHMARKS, STAGE_EPOCHS, Row
from mars.paper.specs import Selection, TableSpec, identities, paper_scales, seeds_of
from mars.paper.tables.table import Measured
from mars.provenance.files import read_json, read_jsonl


class EvaluationKey(NamedTuple):
    """An evaluation: names of the experiment."""

    model: str
    setting: str
    benchmark: str


class ModelAndSetting(NamedTuple):
    """What a row of a table stands for, by name; None where the experiment has no such thing."""

    model: str | None
    setting: str | None


EvaluationRecord = Mapping[str, Any]
"""Record of an evaluation, as :mod:`mars.evaluation.evaluate` writes it."""
Answer = Mapping[str, Any]
"""One question of an evaluation, as answered: a line of its samples."""
Question = tuple[str, int]  # task, document
Observations = Mapping[Question, tuple[float, float]]
"""Of a quantity that is a ratio of sums over questions: what each question adds to both sums."""
PLAIN = Setting.model_validate({})  # one-token mode: a row's setting is this, but for what it says


def models_for(row: Row, spec: Selection) -> list[str]:
    """Our models that are what the row is; of one trained from several seeds, the first."""
    return [
        name
        for name, model in spec.models.items()
        if model.seed_of is None
        and spec.scales[model.scale].stands_for == row.scale
        and (model.method, model.block_size) == (row.method, row.block_size)
        and row.sft_loss in (None, model.ar_weight > 0)
        and row.epochs in (0, STAGE_EPOCHS * model.epochs_factor)
        and model.inverse_t_weighting is row.inverse_t
    ]


def settings_for(decoding: Mapping[str, Any], settings: Mapping[str, Setting]) -> list[str]:
    """Names of the settings that differ from one-token mode by ``decoding`` alone.

    A predicate as a value admits all values for which it is true.
    """
    if unknown := decoding.keys() - Setting.model_fields.keys():
        raise KeyError(f"no setting says {', '.join(unknown)}")
    wanted = {**dict(PLAIN), **decoding}
    return [
        name
        for name, setting in settings.items()
        if all(_admits(wanted[key], value) for key, value in setting)
    ]


def _admits(wanted: Any, value: Any) -> bool:
    return bool(wanted(value)) if callable(wanted) else value == wanted


def is_swept(setting: Setting) -> bool:
    """Whether a setting differs from one-token mode in threshold and metric only."""
    return setting.model_copy(update={"threshold": None, "metric": "probability"}) == PLAIN


def of_rows(rows: Sequence[Row], experiment: Experiment) -> TableSpec:
    """What some rows need of an experiment."""
    everything = TableSpec(
        data=experiment.data,
        scales=paper_scales(experiment),
        models=identities(experiment, experiment.evaluated_models()),
        benchmarks=experiment.benchmarks,
        settings=experiment.settings,
    )
    return selection(rows, everything)


def selection(rows: Sequence[Row], spec: TableSpec) -> TableSpec:
    """What some rows need of ``spec``; what is left out can change without effect."""
    first = {name for row in rows for name in models_for(row, spec)}
    models = {name for one in first for name in seeds_of(one, spec.models)}
    decodings: list[Mapping[str, Any]] = [{}, *(row.decoding for row in rows)]
    settings = {name for one in decodings for name in settings_for(one, spec.settings)}
    titles = {title for row in rows for title in row.benchmarks}
    scales = {spec.models[name].scale for name in models}
    return TableSpec(
        data=spec.data,
        scales={name: scale for name, scale in spec.scales.items() if name in scales},
        models={name: model for name, model in spec.models.items() if name in models},
        benchmarks={key: one for key, one in spec.benchmarks.items() if one.title in titles},
        settings={name: one for name, one in spec.settings.items() if name in settings},
    )


def benchmark_keys(benchmarks: Mapping[str, Benchmark]) -> dict[str, str]:
    """Key of each of the paper's benchmarks that the experiment has, by title, in paper order."""
    keys = {benchmark.title: key for key, benchmark in benchmarks.items()}
    return {title: keys[title] for title in BENCHMARKS if title in keys}


class Evaluations:
    """The evaluation records of an experiment, asked for the quantities of the tables.

    Args:
        records: those of the evaluations that were run.
        answers: the questions behind a record; with them a difference has the standard error of
            paired runs.
    """

    def __init__(
        self,
        spec: Selection,
        records: Mapping[EvaluationKey, EvaluationRecord],
        answers: Mapping[EvaluationKey, Sequence[Answer]] | None = None,
    ):
        self.spec = spec
        self.records = records
        self.answers = answers or {}
        self.keys = benchmark_keys(spec.benchmarks)

    @classmethod
    def read(cls, spec: Selection, folders: Mapping[str, Path]) -> Evaluations:
        """What the stage "evaluate" wrote into each model's folder: <setting>/<benchmark>.json."""
        records: dict[EvaluationKey, EvaluationRecord] = {}
        answers: dict[EvaluationKey, list[Answer]] = {}
        for model, folder in folders.items():
            for file in sorted(folder.glob("*/*.json")):
                key = EvaluationKey(model, file.parent.name, file.stem)
                records[key] = read_json(file)
                if (samples := file.with_suffix(".samples.jsonl")).is_file():
                    answers[key] = read_jsonl(samples)
        return cls(spec, records, answers)

    def setting_of(self, model: str | None, decoding: Mapping[str, Any]) -> str | None:
        """The setting of a row; of several that fit it, one that the model was run under."""
        fitting = settings_for(decoding, self.spec.settings)
        run = {setting for name, setting, _ in self.records if name == model}
        return next((name for name in fitting if name in run), fitting[0] if fitting else None)

    def measure(
        self, quantity: str, run: ModelAndSetting, titles: Iterable[str]
    ) -> dict[str, Measured | None]:
        """A quantity of one row by benchmark title (and "Avg", if asked for)."""
        ours: dict[str, Measured | None] = dict.fromkeys(titles)
        if None in run:
            return ours
        wanted = [title for title in self.keys if title in ours or AVERAGE in ours]
        parts = {title: self._one(quantity, self.key(run, title)) for title in wanted}
        ours |= {title: part for title, part in parts.items() if title in ours}
        if AVERAGE in ours:
            ours[AVERAGE] = average_of(list(parts.values()))
        return ours

    def key(self, run: ModelAndSetting, title: str) -> EvaluationKey:
        """The evaluation of a row on a benchmark of the experiment."""
        return EvaluationKey(str(run.model), str(run.setting), self.keys[title])

    def _one(self, quantity: str, evaluated: EvaluationKey) -> Measured | None:
        """A quantity of an evaluation, or the mean over the seeds of its model."""
        if quantity == "delta_from_tau_1":
            one_token = str(self.setting_of(evaluated.model, {}))
            return self.difference(evaluated, evaluated._replace(setting=one_token))
        parts = {key: self._of_seed(quantity, key) for key in self._seeds(evaluated)}
        return _over_seeds(parts, partial(self._observations, quantity))

    def _seeds(self, evaluated: EvaluationKey) -> list[EvaluationKey]:
        """The evaluation for each seed of its model."""
        names = seeds_of(evaluated.model, self.spec.models)
        return [evaluated._replace(model=name) for name in names]

    def _of_seed(self, quantity: str, evaluated: EvaluationKey) -> Measured | None:
        record = self.records.get(evaluated)
        if record is None:
            return None
        if quantity == "accuracy":
            score = headline(record, self.spec.benchmarks[evaluated.benchmark])
            return _measured(score, 100, record)
        if quantity == "tokens_per_forward":
            counted = record["tokens_per_forward"]
            return None if counted is None else _measured(tokens_per_forward(record), 1, record)
        observed = self._observations(quantity, evaluated)
        return (
            _measured(ratio(*zip(*observed.values(), strict=True)), 1, record) if observed else None
        )

    def _observations(self, quantity: str, evaluated: EvaluationKey) -> Observations:
        """Numerator and denominator of each question, whose sums' ratio the quantity is.

        ``tokens_per_forward_as_counted`` has the tokens accepted after an answer's end as well
        (docs/differences.md, A2).
        """
        if quantity == "accuracy":
            scores = self.question_scores(evaluated)
            return {question: (100 * score, 1.0) for question, score in scores.items()}
        rows = self.answers.get(evaluated, ())
        overrun = quantity == "tokens_per_forward_as_counted"
        if not sum(row["forwards"] for row in rows) or any("overrun" not in row for row in rows):
            return {}
        return {
            (row["task"], row["document"]): (
                float(row["tokens"] + row["overrun"] * overrun),
                float(row["forwards"]),
            )
            for row in rows
        }

    def difference(self, after: EvaluationKey, before: EvaluationKey) -> Measured | None:
        """Accuracy of one record minus that of another on the same benchmark, in points.

        Runs that answer the same questions have the standard error of the mean of the per-question
        differences. Where there are none, or the score is no mean over questions, it is that of
        independent runs, which is larger when the two runs' answers agree. Of models that were
        trained from several seeds it is the mean over seeds, each of which is compared with itself.
        """
        pairs = dict(zip(self._seeds(after), self._seeds(before), strict=False))
        if len(self._seeds(before)) == 1:
            pairs = dict.fromkeys(self._seeds(after), before)
        parts = {one: self._difference_of_seed(one, other) for one, other in pairs.items()}
        return _over_seeds(parts, lambda one: self._differences(one, pairs[one]))

    def _difference_of_seed(self, after: EvaluationKey, before: EvaluationKey) -> Measured | None:
        if after not in self.records or before not in self.records:
            return None
        benchmark = self.spec.benchmarks[after.benchmark]
        record = self.records[after]
        values = headline(record, benchmark), headline(self.records[before], benchmark)
        change = values[0].value - values[1].value
        differences = self._differences(after, before)
        paired = ratio(*zip(*differences.values(), strict=True)) if len(differences) > 1 else None
        if paired is not None and math.isclose(paired.value, 100 * change, abs_tol=1e-7):
            return _measured(paired, 1, record, paired=True)
        errors = [error for _, error in values if error is not None]
        stderr = math.hypot(*errors) if len(errors) == 2 else None
        return _measured(Score(change, stderr), 100, record)

    def _differences(self, after: EvaluationKey, before: EvaluationKey) -> Observations:
        """Difference of each question in points; none unless both have the same questions."""
        one, other = self.question_scores(after), self.question_scores(before)
        if one.keys() != other.keys():
            return {}
        return {question: (100 * (one[question] - other[question]), 1.0) for question in one}

    def difference_by_title(
        self, after: ModelAndSetting, before: ModelAndSetting
    ) -> dict[str, Measured | None]:
        """:meth:`difference` of two rows on each of the paper's benchmarks, and the average."""
        parts: dict[str, Measured | None] = dict.fromkeys(self.keys)
        if None not in (*after, *before):
            parts = {t: self.difference(self.key(after, t), self.key(before, t)) for t in self.keys}
        none = dict.fromkeys(BENCHMARKS)
        return {**none, **parts, AVERAGE: average_of(list(parts.values()))}

    def comparable(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Published scores; their average over the experiment's benchmarks if it has fewer."""
        if AVERAGE not in scores or len(self.keys) in (0, len(BENCHMARKS)):
            return dict(scores)
        parts = {title: score for title, score in scores.items() if title != AVERAGE}
        if not parts:  # an average of which the paper gives no parts is over six benchmarks
            return {}
        return {**parts, AVERAGE: sum(parts[title] for title in self.keys) / len(self.keys)}

    def question_scores(self, evaluated: EvaluationKey) -> dict[Question, float]:
        """The benchmark's score of each question; nothing if it is not one number per question."""
        benchmark = self.spec.benchmarks[evaluated.benchmark]
        scores = {}
        for answer in self.answers.get(evaluated, ()):
            score = answer["scores"].get(benchmark.filter, {}).get(benchmark.metric)
            if not isinstance(score, bool | int | float):
                return {}
            scores[answer["task"], answer["document"]] = float(score)
        return scores


def average_of(parts: Sequence[Measured | None]) -> Measured | None:
    """Mean over benchmarks, which are independent samples; None unless all are there.

    Seeds are not independent of each other over benchmarks: each has an average of its own.
    """
    present = [part for part in parts if part is not None]
    if not present or len(present) < len(parts):
        return None
    number = {len(part.seeds) for part in present}
    by_seed = zip(*(part.seeds for part in present), strict=True) if len(number) == 1 else ()
    seeds = tuple(statistics.fmean(values) for values in by_seed)
    errors = [_over_questions(part) if seeds else part.stderr for part in present]
    score = average(map(Score, [part.value for part in present], errors))
    stderr = None if score.stderr is None else math.hypot(score.stderr, _over_trainings(seeds))
    paired = all(part.paired for part in present)
    return Measured(score.value, stderr, sum(part.n or 0 for part in present), paired, seeds)


def _over_seeds(
    parts: Mapping[EvaluationKey, Measured | None],
    observations: Callable[[EvaluationKey], Observations],
) -> Measured | None:
    """The mean over the seeds that were run, with its standard error over questions and seeds.

    A question that is hard for one seed is hard for the others: the part over questions comes from
    the questions' means over seeds. Where a record has no numbers by question, it is that of one
    seed, as if all seeds answered alike.
    """
    run = {key: part for key, part in parts.items() if part is not None}
    if len(run) < 2:
        return next(iter(run.values()), None)
    seeds = tuple(part.value for part in run.values())
    mean, first = statistics.fmean(seeds), next(iter(run.values()))
    observed = [observations(key) for key in run]
    over_questions = None
    if observed[0] and all(one.keys() == observed[0].keys() for one in observed):
        table = [[one[question] for question in observed[0]] for one in observed]
        found = mean_ratio(*([[pair[i] for pair in row] for row in table] for i in (0, 1)))
        over_questions = found.stderr if math.isclose(found.value, mean, abs_tol=1e-7) else None
    errors = [part.stderr for part in run.values() if part.stderr is not None]
    if over_questions is None and len(errors) == len(run):
        over_questions = math.sqrt(statistics.fmean(error**2 for error in errors))
    stderr = None if over_questions is None else math.hypot(over_questions, _over_trainings(seeds))
    paired = all(part.paired for part in run.values())
    return Measured(mean, stderr, first.n, paired, seeds)


def _over_trainings(seeds: Sequence[float]) -> float:
    """Standard error of the mean of several seeds' numbers, their questions taken as they are."""
    return statistics.stdev(seeds) / math.sqrt(len(seeds)) if len(seeds) > 1 else 0.0


def _over_questions(part: Measured) -> float | None:
    """The part of a standard error that is not over seeds."""
    if part.stderr is None:
        return None
    return math.sqrt(max(0.0, part.stderr**2 - _over_trainings(part.seeds) ** 2))


def _measured(
    score: Score, unit: float, record: EvaluationRecord, paired: bool = False
) -> Measured:
    stderr = None if score.stderr is None else unit * score.stderr
    return Measured(unit * score.value, stderr, record["documents"], paired)
