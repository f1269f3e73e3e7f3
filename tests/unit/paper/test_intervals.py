"""Intervals: the bootstraps against scipy, brute force and simulated trainings; Student's t."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mars.paper.claims.intervals import (
    Uncertain,
    bootstrap,
    bootstrap_ratio,
    bootstrap_weights,
)


def test_the_bootstrap_is_that_of_scipy():
    draw = random.Random(1)
    values = [draw.choice((-1.0, 0.0, 0.0, 1.0)) for _ in range(150)]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = bootstrap([values], draws=20_000)
    assert ours.value == pytest.approx(np.mean(values))
    assert ours.lower == pytest.approx(theirs.low, abs=0.012)
    assert ours.upper == pytest.approx(theirs.high, abs=0.012)


def test_the_bootstrap_of_an_average_resamples_within_each_benchmark():
    """Against drawing the questions themselves, one by one."""
    draw = random.Random(2)
    groups = [[draw.choice((-1, 0, 1)) for _ in range(size)] for size in (20, 60)]
    means = [
        sum(sum(draw.choices(group, k=len(group))) / len(group) for group in groups) / 2
        for _ in range(4000)
    ]
    ours = bootstrap(groups)
    assert ours.value == pytest.approx(sum(sum(g) / len(g) for g in groups) / 2)
    assert ours.lower == pytest.approx(np.percentile(means, 2.5), abs=0.02)
    assert ours.upper == pytest.approx(np.percentile(means, 97.5), abs=0.02)


@given(st.lists(st.lists(st.integers(-1, 1), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_bootstrap_interval_is_seeded_and_turns_with_its_sign(groups):
    interval = bootstrap(groups, draws=200)
    assert interval == bootstrap(groups, draws=200)
    values = [value for group in groups for value in group]
    assert min(values) - 1e-9 <= interval.lower <= interval.upper <= max(values) + 1e-9
    if len(set(values)) == 1:
        assert (interval.lower, interval.upper) == pytest.approx((values[0], values[0]))


def test_a_bootstrap_of_nothing_is_refused():
    for groups in ([], [[1.0], []]):
        with pytest.raises(ValueError, match="every group"):
            bootstrap(groups)


def test_weights_draw_every_question_equally_often():
    weights = bootstrap_weights(50, draws=4000)
    assert weights.shape == (4000, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)


@given(st.lists(st.integers(-1, 1), min_size=2, max_size=30), st.floats(-1, 1))
def test_a_p_value_goes_with_the_interval(values, truth):
    interval = bootstrap([values], draws=999)
    p = interval.p_value(truth)
    assert 0 < p <= 1
    if p < 0.04:
        assert not interval.lower <= truth <= interval.upper
    if not interval.lower - 1e-9 <= truth <= interval.upper + 1e-9:
        assert p < 0.06
    assert interval.share_below(truth) + interval.share_above(truth) <= 1 + 2 / 1000


# --- several trainings --------------------------------------------------------------------------


def trained(random, trainings, questions, spread):
    """Scores of trainings that differ by ``spread``, on questions that differ, with single flips.

    The expectation over trainings and questions is 0.
    """
    return (
        spread * random.normal(size=(trainings, 1))
        + 0.3 * random.normal(size=(1, questions))
        + 0.5 * random.normal(size=(trainings, questions))
    )


def coverage(interval_of, spread, trainings=3, questions=80, times=250):
    """How often the interval of scores contains what they are drawn about."""
    random = np.random.default_rng(7)
    found = (
        interval_of(trained(random, trainings, questions, spread), seed) for seed in range(times)
    )
    return sum(one.lower <= 0 <= one.upper for one in found) / times


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_the_two_way_interval_covers_the_truth_as_often_as_it_says(spread):
    """Whether trainings differ not at all, about as much as questions blur them, or far more."""
    covered = coverage(lambda table, seed: bootstrap([table], draws=400, seed=seed), spread)
    assert 0.9 < covered < 0.99


def test_questions_alone_would_not_cover_trainings_that_differ():
    """What a single training's interval leaves out, and what drawing three of three does."""
    of_questions = coverage(lambda table, seed: bootstrap([table.mean(0)], 400, seed), 0.2)
    assert of_questions < 0.7

    def redrawn(table, seed):
        random = np.random.default_rng(seed)
        rows = random.integers(0, 3, size=(400, 3))
        columns = random.integers(0, 80, size=(400, 80))
        pairs = zip(rows, columns, strict=True)
        return (
            Uncertain(0, 1)
            .interval()
            .of(table.mean(), np.array([table[np.ix_(r, c)].mean() for r, c in pairs]))
        )

    assert coverage(redrawn, 0.2) < 0.9


def test_one_training_is_the_bootstrap_over_its_questions():
    values = np.random.default_rng(0).integers(-1, 2, size=60)
    assert bootstrap([values[None]]) == bootstrap([values])


def test_trainings_that_answer_alike_are_as_one():
    """Nothing is added for trainings, and nothing gained by them either."""
    values = np.random.default_rng(0).integers(-1, 2, size=60)
    one, three = bootstrap([values]), bootstrap([np.tile(values, (3, 1))])
    assert (three.value, three.lower, three.upper) == pytest.approx(
        (one.value, one.lower, one.upper)
    )


def test_a_training_counts_in_all_benchmarks_at_once():
    """One that is better everywhere does not average out over benchmarks."""
    random = np.random.default_rng(0)
    tables = [trained(random, 3, 100, 0.0) for _ in range(6)]
    shift = np.array([[-1.0], [0.0], [1.0]])
    together = bootstrap([table + shift for table in tables], draws=1000)
    apart = bootstrap(
        [table + np.roll(shift, number, axis=0) for number, table in enumerate(tables)], 1000
    )
    student = stats.t.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert (together.upper - together.lower) / 2 == pytest.approx(student, rel=0.15)
    assert apart.upper - apart.lower < (together.upper - together.lower) / 5


def test_a_ratio_is_resampled_by_its_sums():
    random = np.random.default_rng(3)
    forwards = random.integers(5, 30, size=(2, 50))
    tokens = forwards + random.integers(0, 20, size=(2, 50))
    values = tokens.sum(1) / forwards.sum(1)
    assert bootstrap_ratio([(tokens, forwards)]).value == pytest.approx(values.mean())
    ours = bootstrap_ratio([(tokens[0], forwards[0])])
    rows = random.integers(0, 50, size=(4000, 50))
    theirs = tokens[0][rows].sum(1) / forwards[0][rows].sum(1)
    expected = np.percentile(theirs, [2.5, 97.5])
    assert (ours.lower, ours.upper) == pytest.approx(tuple(expected), abs=0.02)


# --- times --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=8, unique=True))
def test_few_rounds_have_students_interval(values):
    error = stats.sem(values)
    interval = Uncertain(np.mean(values), error, len(values) - 1).interval()
    theirs = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
    assert (interval.lower, interval.upper) == pytest.approx(theirs)
    assert np.percentile(interval.draws, [2.5, 97.5]) == pytest.approx(theirs, rel=1e-2, abs=1e-2)


def test_many_questions_have_a_normal_interval():
    interval = Uncertain(3.0, 2.0).interval()
    assert (interval.lower, interval.upper) == pytest.approx((3 - 3.92, 3 + 3.92), abs=1e-3)
