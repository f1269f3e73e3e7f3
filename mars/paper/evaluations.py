"""Our numbers for a row of a table: which of our models it is, how it decodes, what it scored.

A row is found by what it is (scale, method, block size, loss, epochs; threshold, metric, method of
decoding), never by a name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mars.evaluation.scores import Score, average, headline, mean, ratio, tokens_per_forward
from mars.paper.published import AVERAGE, BENCHMARKS, STAGE_EPOCHS, Row
from mars.paper.tables.writers import Measured
from mars.provenance.files import read_json, read_jsonl

Key = tuple[str, str, str]  # model, setting, benchmark: names of the experiment
Records = Mapping[Key, Mapping[str, Any]]
Samples = Mapping[Key, Sequence[Mapping[str, Any]]]
Question = tuple[str, int]  # task, document
Found = tuple[str | None, str | None]  # model and setting of a row, by name

# One-token mode: a setting is this, but for what it says.
ONE_TOKEN: dict[str, Any] = {
    "threshold": None,
    "metric": "probability",
    "method": None,
    "block_size": None,
    "cache_block": None,
    "authors_window": False,
    "lossless": False,
    "extra_mask": False,
    "repetition_penalty": 1.0,
}
IDENTITY = ("scale", "method", "block_size", "ar_weight", "epochs_factor", "inverse_t_weighting")
ORIGIN = ("source", "released")  # whether a model was trained here, or released by the authors


def models_for(row: Row, spec: Mapping[str, Any]) -> list[str]:
    """Our models that are what the row is."""
    return [
        name
        for name, model in spec["models"].items()
        if spec["scales"][model["scale"]]["stands_for"] == row.scale
        and model["method"] == row.method
        and model["block_size"] == row.block_size
        and row.sft_loss in (None, model["ar_weight"] > 0)
        and row.epochs in (0, STAGE_EPOCHS * model["epochs_factor"])
        and model["inverse_t_weighting"] is row.inverse_t
    ]


def settings_for(decoding: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ from one-token mode by ``decoding`` alone.

    A predicate as a value admits all values for which it is true.
    """
    return [
        name
        for name, setting in spec["settings"].items()
        if all(
            _admits(decoding.get(key, default), setting.get(key, default))
            for key, default in ONE_TOKEN.items()
        )
    ]


def _admits(wanted: Any, value: Any) -> bool:
    return bool(wanted(value)) if callable(wanted) else value == wanted


def benchmark_keys(spec: Mapping[str, Any]) -> dict[str, str]:
    """Key of each of the paper's benchmarks that the experiment has, by title, in paper order."""
    keys = {benchmark["title"]: key for key, benchmark in spec["benchmarks"].items()}
    return {title: keys[title] for title in BENCHMARKS if title in keys}


class Evaluations:
    """The evaluation records of an experiment, asked for the quantities of the tables.

    Args:
        spec: plain values in the shape of the configuration: ``scales``, ``models`` (with the keys
            of :data:`IDENTITY`), ``benchmarks`` and ``settings``.
        records: evaluation records by (model, setting, benchmark).
        samples: the documents behind a record; with them a difference has the standard error of
            paired runs.
    """

    def __init__(self, spec: Mapping[str, Any], records: Records, samples: Samples | None = None):
        self.spec = spec
        self.records = records
        self.samples = samples or {}
        self.keys = benchmark_keys(spec)

    def setting_of(self, model: str | None, decoding: Mapping[str, Any]) -> str | None:
        """The setting of a row; of several that fit it, one that the model was run under."""
        fitting = settings_for(decoding, self.spec)
        run = {setting for name, setting, _ in self.records if name == model}
        return next((name for name in fitting if name in run), fitting[0] if fitting else None)

    def measure(
        self, quantity: str, model: str | None, setting: str | None, titles: Iterable[str]
    ) -> dict[str, Measured | None]:
        """A quantity of one row by benchmark title (and "Avg", if asked for)."""
        titles = list(titles)
        ours: dict[str, Measured | None] = dict.fromkeys(titles)
        if model is None or setting is None:
            return ours
        wanted = self.keys if AVERAGE in titles else {t: self.keys.get(t) for t in titles}
        parts = {
            title: self._one(quantity, model, setting, key) for title, key in wanted.items() if key
        }
        ours |= {title: part for title, part in parts.items() if title in ours}
        if AVERAGE in titles:
            ours[AVERAGE] = average_of(list(parts.values()))
        return ours

    def _one(self, quantity: str, model: str, setting: str, key: str) -> Measured | None:
        record = self.records.get((model, setting, key))
        if record is None:
            return None
        if quantity == "accuracy":
            return _measured(headline(record, self.spec["benchmarks"][key]), 100, record)
        if quantity == "tokens_per_forward":
            counted = record["tokens_per_forward"]
            return None if counted is None else _measured(tokens_per_forward(record), 1, record)
        if quantity == "tokens_per_forward_as_counted":
            return self._as_counted(model, setting, key)
        one_token = self.setting_of(model, {})
        if one_token is None:
            return None
        return self.difference((model, setting, key), (model, one_token, key))

    def _as_counted(self, model: str, setting: str, key: str) -> Measured | None:
        """Tokens per forward with those accepted after the end of an answer (AUDIT A2)."""
        rows = self.samples.get((model, setting, key), ())
        forwards = [float(row["forwards"]) for row in rows]
        if not sum(forwards) or any("overrun" not in row for row in rows):
            return None
        tokens = [float(row["tokens"] + row["overrun"]) for row in rows]
        return _measured(ratio(tokens, forwards), 1, self.records[model, setting, key])

    def difference(self, after: Key, before: Key) -> Measured | None:
        """Accuracy of one record minus that of another on the same benchmark, in points.

        Runs that answer the same questions have the standard error of the mean of the per-question
        differences. Where there are none, or the score is no mean over questions, it is that of
        independent runs, which is larger when the two runs' answers agree.
        """
        if after not in self.records or before not in self.records:
            return None
        benchmark = self.spec["benchmarks"][after[2]]
        record = self.records[after]
        values = headline(record, benchmark), headline(self.records[before], benchmark)
        change = values[0].value - values[1].value
        pairs = self.paired_scores(after, before)
        differences = [a - b for a, b in pairs]
        paired = mean(differences) if len(differences) > 1 else None
        if paired is not None and math.isclose(paired.value, change, abs_tol=1e-9):
            return _measured(paired, 100, record, paired=True)
        errors = [error for _, error in values if error is not None]
        stderr = math.hypot(*errors) if len(errors) == 2 else None
        return _measured(Score(change, stderr), 100, record)

    def difference_by_title(self, after: Found, before: Found) -> dict[str, Measured | None]:
        """:meth:`difference` of two rows on each of the paper's benchmarks, and the average."""
        parts: dict[str, Measured | None] = dict.fromkeys(self.keys)
        if None not in (*after, *before):
            for title, key in self.keys.items():
                pair = [(str(model), str(setting), key) for model, setting in (after, before)]
                parts[title] = self.difference(*pair)
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

    def paired_scores(self, one: Key, other: Key) -> list[tuple[float, float]]:
        """Scores of two records question by question; none unless both have the same questions."""
        first, second = self.question_scores(one), self.question_scores(other)
        if first.keys() != second.keys():
            return []
        return [(first[question], second[question]) for question in first]

    def question_scores(self, key: Key) -> dict[Question, float]:
        """The benchmark's score of each question; nothing if it is not one number per question."""
        benchmark = self.spec["benchmarks"][key[2]]
        scores = {}
        for sample in self.samples.get(key, ()):
            score = sample["scores"].get(benchmark["filter"], {}).get(benchmark["metric"])
            if not isinstance(score, bool | int | float):
                return {}
            scores[sample["task"], sample["document"]] = float(score)
        return scores


def average_of(parts: Sequence[Measured | None]) -> Measured | None:
    """Mean over benchmarks, which are independent samples; None unless all are there."""
    present = [part for part in parts if part is not None]
    if not present or len(present) < len(parts):
        return None
    score = average(Score(part.value, part.stderr) for part in present)
    paired = all(part.paired for part in present)
    return Measured(score.value, score.stderr, sum(part.n or 0 for part in present), paired)


def _measured(
    score: Score, unit: float, record: Mapping[str, Any], paired: bool = False
) -> Measured:
    stderr = None if score.stderr is None else unit * score.stderr
    return Measured(unit * score.value, stderr, record["documents"], paired)


def read_evaluations(
    folders: Mapping[str, Path],
) -> tuple[dict[Key, dict[str, Any]], dict[Key, list[dict[str, Any]]]]:
    """Records and samples by (model, setting, benchmark).

    Args:
        folders: by model, what :func:`mars.evaluation.evaluate.evaluate` wrote:
            ``<setting>/<benchmark>.json`` and ``<setting>/<benchmark>.samples.jsonl``.
    """
    records: dict[Key, dict[str, Any]] = {}
    samples: dict[Key, list[dict[str, Any]]] = {}
    for model, folder in folders.items():
        for file in sorted(Path(folder).glob("*/*.json")):
            key = (model, file.parent.name, file.stem)
            records[key] = read_json(file)
            documents = file.with_suffix(".samples.jsonl")
            if documents.is_file():
                samples[key] = read_jsonl(documents)
    return records, samples
