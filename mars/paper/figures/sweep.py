"""Points of a threshold sweep: accuracy and tokens per forward of a model under a setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from mars.paper.evaluations import EvaluationKey, Evaluations, ModelAndSetting, is_swept
from mars.paper.figures.style import add_tip
from mars.paper.tables.tidy_csv import csv_text
from mars.provenance.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured point, of ``n`` questions and the mean over ``seeds`` trainings.

    Attributes:
        scale: the paper's scale that the model stands for, ``0.5B`` or ``7B``.
        method: ``mars`` or ``ar_sft``, which has neither ``block_size`` nor ``sft_loss``.
        threshold: tau of ``metric``; None is one token per forward.
        accuracy, accuracy_stderr: percent.
        tokens_per_forward, tokens_per_forward_stderr: per sequence.
    """

    scale: str
    benchmark: str
    model: str
    method: str
    block_size: int | None = None
    sft_loss: bool | None = None
    setting: str
    metric: str = "probability"
    threshold: float | None = None
    accuracy: float
    accuracy_stderr: float | None = None
    tokens_per_forward: float = 1.0
    tokens_per_forward_stderr: float | None = None
    n: int = 0
    seeds: int = 1


def sweep_points(evaluations: Evaluations) -> list[Point]:
    """The points of the models, settings and benchmarks, by rising threshold in each curve.

    Records that are missing, and those of settings that are no part of a sweep, give no point. A
    model that was trained from several seeds has one curve, of their means.
    """
    spec = evaluations.spec
    points = [
        _point(evaluations, key)
        for key, record in evaluations.records.items()
        if key.model in spec.models
        and spec.models[key.model].seed_of is None
        and key.benchmark in spec.benchmarks
        and key.setting in spec.settings
        and is_swept(spec.settings[key.setting])
        and record["tokens_per_forward"] is not None
    ]
    return sorted(points, key=_order)


def _point(evaluations: Evaluations, key: EvaluationKey) -> Point:
    spec = evaluations.spec
    model, setting = spec.models[key.model], spec.settings[key.setting]
    title, run = spec.benchmarks[key.benchmark].title, ModelAndSetting(key.model, key.setting)
    score = evaluations.measure("accuracy", run, [title])[title]
    counted = evaluations.measure("tokens_per_forward", run, [title])[title]
    assert score is not None  # there is a record
    assert counted is not None
    return Point(
        scale=spec.scales[model.scale].stands_for,
        benchmark=title,
        model=key.model,
        method=model.method,
        block_size=model.block_size,
        sft_loss=model.ar_weight > 0 if model.method == "mars" else None,
        setting=key.setting,
        metric=setting.metric,
        threshold=setting.threshold,
        accuracy=score.value,
        accuracy_stderr=score.stderr,
        tokens_per_forward=counted.value,
        tokens_per_forward_stderr=counted.stderr,
        n=score.n or 0,
        seeds=max(1, len(score.seeds)),
    )


def _order(point: Point) -> tuple:
    # One-token mode is the strictest setting of every metric: low entropy is strict, the
    # other two metrics are strict when high.
    sign = 1 if point.metric == "entropy" else -1
    strict = float("-inf") if point.threshold is None else sign * point.threshold
    return point.scale, point.benchmark, point.method, point.model, point.metric, strict


def write_points(points: Iterable[Point], file: Path) -> Path:
    """Write the points of a figure as CSV, in full precision, one per line."""
    write_atomic(file, csv_text([one.name for one in fields(Point)], map(astuple, points)))
    return file


def draw_curve(panel: Axes, curve: list[Point], **look: Any) -> None:
    panel.errorbar(
        [point.tokens_per_forward for point in curve],
        [point.accuracy for point in curve],
        xerr=[point.tokens_per_forward_stderr or 0 for point in curve],
        yerr=[point.accuracy_stderr or 0 for point in curve],
        elinewidth=0.5,
        **look,
    )


def add_tips(panel: Axes, points: Iterable[Point], label: str) -> None:
    """Let each point say where it is; ``label``: of its curve."""
    for point in points:
        add_tip(panel, point.tokens_per_forward, point.accuracy, tip(label, point))


def say_not_run(panel: Axes) -> None:
    panel.text(0.5, 0.5, "not run", ha="center", va="center", transform=panel.transAxes)


def tip(label: str, point: Point) -> str:
    """What a point says of itself: its curve, its threshold, and the numbers there."""
    name = {"probability": "tau"}.get(point.metric, point.metric)
    rule = "one token" if point.threshold is None else f"{name} {point.threshold:g}"
    error = "" if point.accuracy_stderr is None else f" ± {point.accuracy_stderr:.1f}"
    questions = f", {point.n} questions" if point.n else ""
    questions += f", {point.seeds} seeds" if point.seeds > 1 else ""
    return (
        f"{label}, {rule}: {point.accuracy:.1f}{error} %,"
        f" {point.tokens_per_forward:.2f} tokens per forward{questions}"
    )
