"""Points of a threshold sweep: accuracy and tokens per forward of a model under a setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mars.evaluation.scores import headline, tokens_per_forward
from mars.paper.evaluations import ONE_TOKEN, Key

SWEPT = ("metric", "threshold")  # what a setting of a sweep may say


@dataclass(frozen=True)
class Point:
    """One measured point.

    Attributes:
        scale: the paper's scale that the model stands for, ``0.5B`` or ``7B``.
        method: ``mars`` or ``ar_sft``.
        block_size: B; None for ``ar_sft``.
        sft_loss: whether the model was trained with the AR loss; None for ``ar_sft``.
        metric: acceptance metric of ``threshold``.
        threshold: tau; None is one token per forward.
        accuracy, accuracy_stderr: percent.
        tokens_per_forward, tokens_per_forward_stderr: per sequence.
        n: questions.
    """

    scale: str
    benchmark: str
    model: str
    method: str
    block_size: int | None
    sft_loss: bool | None
    setting: str
    metric: str
    threshold: float | None
    accuracy: float
    accuracy_stderr: float | None
    tokens_per_forward: float
    tokens_per_forward_stderr: float | None
    n: int


def sweep_points(spec: Mapping[str, Any], records: Mapping[Key, Mapping[str, Any]]) -> list[Point]:
    """The points of ``spec``'s models, settings and benchmarks, by rising threshold in each curve.

    Args:
        spec: plain values in the shape of the configuration: ``scales``, ``models``,
            ``benchmarks`` and ``settings``.
        records: evaluation records by (model, setting, benchmark); those that are missing, and
            those of settings that are no part of a sweep, give no point.
    """
    points = [
        _point(spec, cell, record)
        for cell, record in records.items()
        if cell[0] in spec["models"]
        and cell[2] in spec["benchmarks"]
        and is_sweep(spec["settings"].get(cell[1]))
        and record["tokens_per_forward"] is not None
    ]
    return sorted(points, key=_order)


def is_sweep(setting: Mapping[str, Any] | None) -> bool:
    """Whether a setting differs from the paper's decoding in threshold and metric only."""
    if setting is None:
        return False
    fixed = {key: value for key, value in ONE_TOKEN.items() if key not in SWEPT}
    return all(setting.get(key, value) == value for key, value in fixed.items())


def _point(spec: Mapping[str, Any], cell: Key, record: Mapping[str, Any]) -> Point:
    name, setting, key = cell
    model, benchmark = spec["models"][name], spec["benchmarks"][key]
    score, counted = headline(record, benchmark), tokens_per_forward(record)
    return Point(
        scale=spec["scales"][model["scale"]]["stands_for"],
        benchmark=benchmark["title"],
        model=name,
        method=model["method"],
        block_size=model["block_size"],
        sft_loss=model["ar_weight"] > 0 if model["method"] == "mars" else None,
        setting=setting,
        metric=spec["settings"][setting]["metric"],
        threshold=spec["settings"][setting]["threshold"],
        accuracy=100 * score.value,
        accuracy_stderr=None if score.stderr is None else 100 * score.stderr,
        tokens_per_forward=counted.value,
        tokens_per_forward_stderr=counted.stderr,
        n=record["documents"],
    )


def _order(point: Point) -> tuple:
    # One-token mode is the strictest setting of every metric: low entropy is strict, the
    # other two metrics are strict when high.
    sign = 1 if point.metric == "entropy" else -1
    strict = float("-inf") if point.threshold is None else sign * point.threshold
    return point.scale, point.benchmark, point.method, point.model, point.metric, strict


def as_csv(points: Iterable[Point]) -> str:
    """The points of a figure, in full precision, one per line."""
    stream = io.StringIO()
    columns = [field.name for field in fields(Point)]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return stream.getvalue()
