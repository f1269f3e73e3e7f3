"""The paired tests against scipy and brute force."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mars.paper.claims.significance import (
    Interval,
    bootstrap_mean,
    bootstrap_weights,
    combined_test,
    mcnemar,
)
from mars.paper.evaluations import Evaluations, ModelAndSetting
from tests.support.synthetic_evaluations import evaluations, experiment


@given(gained=st.integers(0, 300), lost=st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = 1.0
    if gained + lost:
        expected = stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_mcnemar_by_enumeration():
    """All ways in which five discordant questions may fall, one as likely as the other."""
    splits = [sum(sides) for sides in itertools.product((0, 1), repeat=5)]
    for gained in range(6):
        as_uneven = sum(abs(split - 2.5) >= abs(gained - 2.5) for split in splits)
        assert mcnemar(gained, 5 - gained) == pytest.approx(as_uneven / len(splits))


def test_mcnemar_of_many_questions_does_not_overflow():
    assert mcnemar(6000, 5800) == pytest.approx(stats.binomtest(6000, 11800, 0.5).pvalue)


def test_the_bootstrap_is_that_of_scipy():
    draw = random.Random(1)
    values = [draw.choice((-1.0, 0.0, 0.0, 1.0)) for _ in range(150)]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = bootstrap_mean([values], draws=20_000)
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
    ours = bootstrap_mean(groups)
    assert ours.value == pytest.approx(sum(sum(g) / len(g) for g in groups) / 2)
    assert ours.lower == pytest.approx(np.percentile(means, 2.5), abs=0.02)
    assert ours.upper == pytest.approx(np.percentile(means, 97.5), abs=0.02)


@given(st.lists(st.lists(st.integers(-1, 1), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_bootstrap_interval_is_seeded_and_turns_with_its_sign(groups):
    interval = bootstrap_mean(groups, draws=200)
    assert interval == bootstrap_mean(groups, draws=200)
    values = [value for group in groups for value in group]
    assert min(values) <= interval.lower <= interval.upper <= max(values)
    if len(set(values)) == 1:
        assert interval == Interval(values[0], values[0], values[0])


def test_a_bootstrap_of_nothing_is_refused():
    for groups in ([], [[1.0], []]):
        with pytest.raises(ValueError, match="every group"):
            bootstrap_mean(groups)


def test_weights_draw_every_question_equally_often():
    weights = bootstrap_weights(50, draws=4000)
    assert weights.shape == (4000, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)


def paired_test(evaluated, after, before):
    return combined_test("x", evaluated, {ModelAndSetting(*after): 1, ModelAndSetting(*before): -1})


def test_a_paired_test_counts_the_questions_that_changed():
    spec = experiment()
    records, samples = evaluations(spec, 3, n=40)
    evaluated = Evaluations(spec, records, samples)
    test = paired_test(evaluated, ("m4", "fast"), ("m4", "plain"))
    gained = lost = 0
    by_benchmark, before_means = [], []
    for key in spec.benchmarks:
        after, before = (
            [row["scores"]["none"]["exact_match"] for row in samples["m4", setting, key]]
            for setting in ("fast", "plain")
        )
        gained += sum(a > b for a, b in zip(after, before, strict=True))
        lost += sum(a < b for a, b in zip(after, before, strict=True))
        by_benchmark.append((sum(after) - sum(before)) / 40)
        before_means.append(sum(before) / 40)
    assert (test.gained, test.lost, test.questions, test.fewest) == (gained, lost, 240, 40)
    assert test.difference.value == pytest.approx(100 * sum(by_benchmark) / 6)
    assert test.reference == pytest.approx(100 * sum(before_means) / 6)
    assert test.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_rows_are_compared_on_the_benchmarks_that_both_have():
    spec = experiment()
    evaluated = Evaluations(spec, *evaluations(spec, 3))
    test = paired_test(evaluated, ("m4", "tau0.5"), ("m4", "plain"))
    assert test.titles == ["GSM8K", "HumanEval"]
    assert paired_test(evaluated, ("m4", "jacobi"), ("m4", "plain")) is None


def test_a_difference_of_differences_has_no_mcnemar():
    spec = experiment()
    evaluated = Evaluations(spec, *evaluations(spec, 4, n=30))
    signs = {
        ModelAndSetting("m7", "plain"): 1,
        ModelAndSetting("m4", "plain"): -1,
        ModelAndSetting("m8", "plain"): -1,
        ModelAndSetting("m5", "plain"): 1,
    }
    test = combined_test("x", evaluated, signs)
    parts = [
        paired_test(evaluated, (after, "plain"), (before, "plain")).difference.value
        for after, before in (("m7", "m4"), ("m8", "m5"))
    ]
    assert test.difference.value == pytest.approx(parts[0] - parts[1])
    assert (test.gained, test.lost, test.p) == (None, None, None)


@given(st.floats(-50, 50), st.floats(0, 50), st.floats(0, 50))
def test_the_distance_of_an_interval_from_zero(value, below, above):
    interval = Interval(value, value - below, value + above)
    points = np.linspace(interval.lower, interval.upper, 101)
    distance = interval.distance()
    assert distance.upper == pytest.approx(abs(points).max())
    assert distance.lower <= abs(points).min() + 1e-9
    assert distance.lower == 0 or distance.lower == pytest.approx(abs(points).min())
