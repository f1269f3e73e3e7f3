"""Acceptance rules against their definitions, written out one number at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars.decoding.acceptance import METRICS, accepted_run, confidence, cutoff, forbid
from mars.errors import UserError

ROWS = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=8)


@given(ROWS, st.sampled_from(METRICS))
def test_confidence_is_the_metric_of_the_softmax(row, metric):
    weights = [math.exp(value - max(row)) for value in row]
    ordered = sorted((weight / sum(weights) for weight in weights), reverse=True)
    expected = {
        "probability": ordered[0],
        "margin": ordered[0] - ordered[1],
        "entropy": sum(p * math.log(p) for p in ordered if p > 0),
    }[metric]
    assert confidence(torch.tensor(row), metric).item() == pytest.approx(expected, abs=1e-5)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
    st.floats(0, 1, width=32),
    st.booleans(),
)
def test_run_is_the_leftmost_sure_run_and_never_empty(values, needed, strict):
    expected = 0
    for index, value in enumerate(values):
        if value < needed and (strict or index > 0):
            break
        expected += 1
    run = accepted_run(torch.tensor([values]), torch.tensor([[needed]]), strict)
    assert run.tolist() == [max(expected, 1)]


@pytest.mark.parametrize(
    ("metric", "end"), [("probability", 1.0), ("margin", 1.0), ("entropy", 0.0)]
)
def test_the_end_of_the_scale_is_one_token_mode_even_for_a_saturated_softmax(metric, end):
    logits = torch.tensor([[200.0, 0.0, 0.0]]).expand(4, 3)
    for threshold in (end, None):
        needed = torch.tensor(cutoff(threshold, metric))
        assert accepted_run(confidence(logits, metric), needed) == 1


@pytest.mark.parametrize(
    ("threshold", "metric"),
    [(-0.1, "probability"), (1.1, "margin"), (-1, "entropy"), (math.nan, "entropy"), (0.5, "luck")],
)
def test_a_threshold_off_the_scale_is_refused(threshold, metric):
    with pytest.raises(UserError):
        cutoff(threshold, metric)


def test_the_forbidden_token_is_impossible_and_harmless_to_every_metric():
    logits = forbid(torch.tensor([[1.0, 9.0, 2.0]], dtype=torch.bfloat16), 1)
    assert logits.dtype == torch.float32
    assert logits.argmax(-1) == 2
    for metric in METRICS:
        without = confidence(torch.tensor([[1.0, 2.0]]), metric)
        assert confidence(logits, metric).item() == pytest.approx(without.item())
