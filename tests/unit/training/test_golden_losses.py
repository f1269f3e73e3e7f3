"""The losses of every method are those stored; a change of the objective has to be told."""

from __future__ import annotations

import json

from tests.support.golden_losses import RUNS, STORED, first_difference, measure


def test_losses_are_the_stored_ones() -> None:
    stored = json.loads(STORED.read_text())
    assert set(stored) == set(RUNS)
    assert first_difference(stored, measure()) == []


def test_the_first_difference_is_found() -> None:
    before = {"a": [3.0, 2.0, 1.0], "b": [1.0, 1.0]}
    assert first_difference(before, {"a": [3.0, 2.00001, 1.0], "b": [1.0, 1.0]}) == []
    (sentence,) = first_difference(before, {"a": [3.0, 2.5, 9.0], "b": [1.0, 1.0]})
    assert "a: first at step 2, 2.000000 became 2.500000" in sentence
    (sentence,) = first_difference(before, {"a": [3.0, 2.0, 1.0], "b": [1.0]})
    assert sentence == "b: 2 steps became 1"
