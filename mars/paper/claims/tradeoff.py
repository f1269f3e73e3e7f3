"""Accuracy against tokens per forward, metric by metric, and the gap between two such curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mars.paper.claims.significance import Interval, bootstrap_weights, interval_of
from mars.paper.evaluations import EvaluationKey, Evaluations, Question, is_swept

DRAWS = 2000
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


def gap(curve: Curve, reference: Curve) -> Interval | None:
    """Mean difference of accuracy over the speeds that both curves reach, in points.

    Returns:
        None where they reach no speed in common, as measured or in most draws.
    """
    drawings = (curve.accuracy, curve.speed, reference.accuracy, reference.speed)
    gaps = [_gap(*points) for points in zip(*drawings, strict=True)]
    drawn = np.array([one for one in gaps[1:] if one is not None])
    if gaps[0] is None or len(drawn) < len(gaps) / 2:
        return None
    return interval_of(gaps[0], drawn)


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
    weights = np.vstack([np.ones(len(table)), bootstrap_weights(len(table), DRAWS)])
    accuracy, speed = (
        100 * (weights @ scores) / len(table),
        (weights @ tokens) / (weights @ forwards),
    )
    return Curve(accuracy, speed, len(table))


def _gap(
    accuracy: np.ndarray, speed: np.ndarray, other_accuracy: np.ndarray, other_speed: np.ndarray
) -> float | None:
    low = max(speed.min(), other_speed.min())
    high = min(speed.max(), other_speed.max())
    if not low < high:
        return None
    grid = np.linspace(low, high, GRID)
    order, other = np.argsort(speed), np.argsort(other_speed)
    ours = np.interp(grid, speed[order], accuracy[order])
    theirs = np.interp(grid, other_speed[other], other_accuracy[other])
    return float((ours - theirs).mean())
