"""The plot of a claim: every mark is on its axis, and where the numbers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.paper.claims.results import POINTS, TIMES
from mars.paper.report.forest import axis, forests, ticks

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
bounds = st.none() | numbers


@st.composite
def estimates(draw):
    lower, value, upper = sorted(draw(st.lists(numbers, min_size=3, max_size=3)))
    found = {"label": "a row", "unit": draw(st.sampled_from([POINTS, TIMES])), "verdict": ""}
    found |= {"lower": lower, "value": value, "upper": upper, "published": draw(bounds)}
    return found | {"at_least": draw(bounds), "at_most": draw(bounds)}


@given(st.lists(estimates(), min_size=1, max_size=5))
def test_every_mark_is_on_its_axis_and_in_order(made):
    drawn = [strip for forest in forests(made) for strip in forest.strips]
    assert len(drawn) == len(made)
    for strip in drawn:
        assert 0 <= strip.lower <= strip.value <= strip.upper <= 100
        places = [*strip.bounds, *(strip.holds or ())]
        places += [strip.published] if strip.published is not None else []
        assert all(0 <= place <= 100 for place in places)
    for forest in forests(made):
        assert 1 < len(forest.ticks) < 9
        assert all(0 <= place <= 100 for place, _ in forest.ticks)


@given(estimates(), numbers)
def test_an_interval_is_on_the_shaded_side_where_the_rule_says_so(one, bound):
    one |= {"at_least": bound, "at_most": None}
    ((strip,),) = (forest.strips for forest in forests([one]))
    assert strip.holds is not None
    if one["lower"] >= bound:
        assert strip.lower >= strip.holds[0] == strip.bounds[0]
    if one["lower"] < bound:
        assert strip.lower <= strip.holds[0]


def estimate(value, lower, upper, **more):
    empty = dict.fromkeys(("at_least", "at_most", "published"))
    words = {"label": "a row", "unit": TIMES, "verdict": "undecided"}
    return {**words, **empty, "value": value, "lower": lower, "upper": upper, **more}


def test_an_interval_that_is_too_wide_ends_in_an_arrow():
    made = [estimate(1.1, -40.0, 42.0, at_least=1.0), estimate(1.3, 1.2, 1.4, at_least=1.0)]
    (forest,) = forests(made)
    assert [strip.cut for strip in forest.strips] == [(True, True), (False, False)]
    assert forest.strips[1].upper - forest.strips[1].lower > 5, "the narrow one can be seen"


def test_a_number_without_interval_has_an_axis():
    low, high = axis([estimate(1.0, 1.0, 1.0)])
    assert low < 1 < high
    assert ticks(low, high)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"at_least": -2.0}, "the claim asks for at least -2: undecided"),
        ({"at_most": 1.2}, "the claim asks for at most 1.2: undecided"),
        ({"at_least": -2.0, "at_most": 2.0}, "the claim asks for -2 to 2: undecided"),
        ({}, "only shown"),
        ({"published": 1.71}, "paper 1.71"),
    ],
)
def test_a_strip_says_what_it_shows(more, words):
    (forest,) = forests([estimate(1.34, 1.28, 1.41, **more)])
    spoken = forest.strips[0].spoken
    assert "a row: 1.34 [1.28, 1.41] times as fast" in spoken
    assert words in spoken
