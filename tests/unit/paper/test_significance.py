"""The paired tests against scipy and brute force."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mars.paper.claims.significance import combined_test, mcnemar, speed
from mars.paper.claims.verdicts import holm
from mars.paper.evaluations import Evaluations, ModelAndSetting
from tests.support.synthetic_evaluations import evaluations, experiment
from tests.support.synthetic_evaluations import samples as samples_of


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


def paired_test(evaluated, after, before):
    return combined_test("x", evaluated, {ModelAndSetting(*after): 1, ModelAndSetting(*before): -1})


def test_a_paired_test_counts_the_questions_that_changed():
    spec = experiment()
    records, samples = evaluations(spec, 3, n=40)
    evaluated = Evaluations(spec, records, samples)
    test = paired_test(evaluated, ("m4", "fast"), ("m4", "plain"))
    before_means = []
    assert [one.title for one in test.benchmarks] == [*evaluated.keys]
    for part, key in zip(test.benchmarks, spec.benchmarks, strict=True):
        after, before = (
            [row["scores"]["none"]["exact_match"] for row in samples["m4", setting, key]]
            for setting in ("fast", "plain")
        )
        gained = sum(a > b for a, b in zip(after, before, strict=True))
        lost = sum(a < b for a, b in zip(after, before, strict=True))
        assert (part.gained, part.lost, part.questions) == (gained, lost, 40)
        assert part.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
        assert part.difference.value == pytest.approx(100 * (gained - lost) / 40)
        assert part.difference.lower < part.difference.value < part.difference.upper
        before_means.append(sum(before) / 40)
    assert [one.p_holm for one in test.benchmarks] == holm([one.p for one in test.benchmarks])
    assert (test.questions, test.fewest) == (240, 40)
    parts = [one.difference.value for one in test.benchmarks]
    assert test.difference.value == pytest.approx(sum(parts) / 6)
    assert test.reference == pytest.approx(100 * sum(before_means) / 6)


def test_a_large_benchmark_does_not_drown_the_others():
    """One gains and five lose: the average says so, whatever a count over all questions would."""
    spec = experiment()
    records, samples = evaluations(spec, 3, n=40)
    for key in spec.benchmarks:
        n, better = (4000, 1) if key == "mmlu-pro" else (40, 0)
        for setting, right in (("fast", better), ("plain", 1 - better)):
            rows = samples_of([int(right and i % 4 == 0) for i in range(n)])
            samples["m4", setting, key] = rows
    test = paired_test(Evaluations(spec, records, samples), ("m4", "fast"), ("m4", "plain"))
    assert sum(one.gained - one.lost for one in test.benchmarks) > 900
    assert test.difference.upper < 0
    assert {one.title for one in test.benchmarks if one.difference.lower > 0} == {"MMLU-Pro"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_corrects_for_the_number_of_tests(p_values):
    """It is the closed test of Bonferroni's: of all subsets that hold a test, the worst."""
    corrected = holm(p_values)
    for index, found in enumerate(corrected):
        others = sorted(p for place, p in enumerate(p_values) if place != index)
        subsets = [[p_values[index], *others[start:]] for start in range(len(others) + 1)]
        closed = max(min(1.0, len(subset) * min(subset)) for subset in subsets)
        assert found == pytest.approx(closed)


def test_rows_are_compared_on_the_benchmarks_that_both_have():
    spec = experiment()
    evaluated = Evaluations(spec, *evaluations(spec, 3))
    test = paired_test(evaluated, ("m4", "tau0.5"), ("m4", "plain"))
    assert [one.title for one in test.benchmarks] == ["GSM8K", "HumanEval"]
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
    assert {(one.gained, one.lost) for one in test.benchmarks} == {(None, None)}
    assert all(0 < one.p <= 1 for one in test.benchmarks)


def seeded(spec, *names, seeds=(1, 2)):
    """The experiment with further trainings of some models, and evaluations of all."""
    for name in names:
        for seed in seeds:
            one = spec.models[name].model_copy(update={"seed_of": name})
            spec.models[f"{name}-seed{seed}"] = one
    return Evaluations(spec, *evaluations(spec, 5, n=40))


def test_trainings_are_compared_seed_by_seed():
    spec = experiment()
    evaluated = seeded(spec, "m2", "m4")
    test = paired_test(evaluated, ("m4", "plain"), ("m2", "plain"))
    assert (test.trainings, test.questions, test.fewest) == (3, 240, 40)
    alone = [
        paired_test(evaluated, (f"m4{seed}", "plain"), (f"m2{seed}", "plain"))
        for seed in ("", "-seed1", "-seed2")
    ]
    differences = [one.difference.value for one in alone[1:]]
    single = evaluations_of_one(evaluated, "m4", "m2")
    assert test.difference.value == pytest.approx((single + sum(differences)) / 3)
    assert {(one.gained, one.lost) for one in test.benchmarks} == {(None, None)}
    assert all(0 < one.p <= 1 for one in test.benchmarks)


def evaluations_of_one(evaluated, after, before):
    """Difference of the first trainings alone, in points, written out."""
    means = []
    for key in evaluated.spec.benchmarks:
        scores = [
            [row["scores"]["none"]["exact_match"] for row in evaluated.answers[name, "plain", key]]
            for name in (after, before)
        ]
        means.append(100 * (sum(scores[0]) - sum(scores[1])) / len(scores[0]))
    return sum(means) / len(means)


def test_a_model_trained_once_is_compared_with_every_training_but_speaks_of_one():
    spec = experiment()
    evaluated = seeded(spec, "m4")
    test = paired_test(evaluated, ("m4", "plain"), ("m2", "plain"))
    assert test.trainings == 1
    parts = [evaluations_of_one(evaluated, f"m4{seed}", "m2") for seed in ("", "-seed1", "-seed2")]
    assert test.difference.value == pytest.approx(sum(parts) / 3)


def test_tokens_per_forward_are_those_of_the_answers():
    spec = experiment()
    evaluated = seeded(spec, "m4")
    for overrun in (False, True):
        found, trainings, fewest = speed(evaluated, ModelAndSetting("m4", "fast"), overrun)
        assert (trainings, fewest) == (3, 40)
        ratios = []
        for key in spec.benchmarks:
            for name in ("m4", "m4-seed1", "m4-seed2"):
                rows = evaluated.answers[name, "fast", key]
                tokens = sum(row["tokens"] + overrun * row["overrun"] for row in rows)
                ratios.append(tokens / sum(row["forwards"] for row in rows))
        assert found.value == pytest.approx(sum(ratios) / len(ratios))
        assert found.lower < found.value < found.upper
    assert speed(evaluated, ModelAndSetting("m1", "fast")) is None
