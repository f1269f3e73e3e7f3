"""Accuracy against tokens per forward, metric by metric, and the gap between two such curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mars.paper.claims.intervals import FEWER_DRAWS, Interval, bootstrap_weights, two_way
from mars.paper.evaluations import EvaluationKey, Evaluations, Question, is_swept

GRID = 21  # speeds at which two curves are compared


class Curve(NamedTuple):
    """The settings of one metric: first as measured, then in bootstrap draws.

    Attributes:
        accuracy, speed: percent and tokens per forward, of shape (1 + draws, settings). All curves
            of an experiment share the questions of a draw.
        fewest: questions of the benchmark that has the fewest.
    """

    accuracy: np.ndarray
    speed: np.ndarray
    fewest: int


def tradeoffs(model: str, evaluations: Evaluations) -> dict[str, Curve]:
    """The curve of each metric over its thresholds, on the benchmarks that all were run on."""
    settings = {
        name: setting.metric
        for name, setting in evaluations.spec.settings.items()
        if setting.threshold is not None
        and is_swept(setting)
        and any((model, name) == cell[:2] for cell in evaluations.records)
    }
    parts = []
    for key in evaluations.keys.values():
        answers = [_answers(evaluations, model, name, key) for name in settings]
        if answers and answers[0] and all(one.keys() == answers[0].keys() for one in answers):
            parts.append(_resampled(answers))
    if not parts:
        return {}
    accuracy = np.mean([part.accuracy for part in parts], axis=0)
    speed = np.mean([part.speed for part in parts], axis=0)
    fewest = min(part.fewest for part in parts)
    metrics = np.array(list(settings.values()))
    return {
        metric: Curve(accuracy[:, metrics == metric], speed[:, metrics == metric], fewest)
        for metric in dict.fromkeys(settings.values())
    }


def gap(pairs: Sequence[tuple[Curve, Curve]]) -> Interval | None:
    """Mean difference of accuracy over the speeds that two curves both reach, in points.

    Args:
        pairs: of each training of a model, a curve and the one it is compared with.

    Returns:
        The mean over trainings, its interval over them and over questions. None where a training's
        curves reach no speed in common, as measured or in most draws.
    """
    gaps = np.array([_gaps(curve, reference) for curve, reference in pairs])
    values, draws = gaps[:, 0], gaps[:, 1:]
    complete = np.isfinite(draws).all(axis=0)
    if not np.isfinite(values).all() or complete.mean() < 0.5:
        return None
    return two_way(values, draws[:, complete])


def _gaps(curve: Curve, reference: Curve) -> list[float]:
    """The difference as measured and in each draw; NaN without a speed in common."""
    drawings = (curve.accuracy, curve.speed, reference.accuracy, reference.speed)
    return [_gap(*points) for points in zip(*drawings, strict=True)]


def _answers(
    evaluations: Evaluations, model: str, setting: str, key: str
) -> dict[Question, tuple[float, float, float]]:
    """Score, tokens and forwards of each question; none where there is no score per question."""
    evaluated = EvaluationKey(model, setting, key)
    scores = evaluations.question_scores(evaluated)
    return {
        (row["task"], row["document"]): (
            scores[row["task"], row["document"]],
            float(row["tokens"]),
            float(row["forwards"]),
        )
        for row in evaluations.answers.get(evaluated, ())
        if scores
    }


def _resampled(answers: list[dict[Question, tuple[float, float, float]]]) -> Curve:
    """One benchmark's part of a curve over all settings."""
    table = np.array([[one[question] for one in answers] for question in answers[0]])
    scores, tokens, forwards = np.moveaxis(table, -1, 0)  # each (questions, settings)
    weights = np.vstack([np.ones(len(table)), bootstrap_weights(len(table), FEWER_DRAWS)])
    accuracy, speed = (
        100 * (weights @ scores) / len(table),
        (weights @ tokens) / (weights @ forwards),
    )
    return Curve(accuracy, speed, len(table))


def _gap(
    accuracy: np.ndarray, speed: np.ndarray, other_accuracy: np.ndarray, other_speed: np.ndarray
) -> float:
    low = max(speed.min(), other_speed.min())
    high = min(speed.max(), other_speed.max())
    if not low < high:
        return np.nan
    grid = np.linspace(low, high, GRID)
    order, other = np.argsort(speed), np.argsort(other_speed)
    ours = np.interp(grid, speed[order], accuracy[order])
    theirs = np.interp(grid, other_speed[other], other_accuracy[other])
    return float((ours - theirs).mean())
