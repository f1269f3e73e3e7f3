"""Two results are the same up to rounding, or the first difference is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.audit.recompute import difference, difference_of_text

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
)


@given(values)
def test_a_value_is_the_same_as_itself(value: Any):
    assert difference(value, value) == ""


@given(st.floats(0.1, 1e6), st.floats(-1, 1))
def test_the_last_digits_are_rounding_and_others_are_not(value: float, share: float):
    nearly = value * (1 + share * 1e-12)
    assert difference({"p": [value]}, {"p": [nearly]}) == ""
    assert difference_of_text(f"a {value!r} b", f"a {nearly!r} b") == ""
    other = value * 1.001
    assert difference({"p": [value]}, {"p": [other]}).startswith("p.0 is ")
    assert difference_of_text(f"x\na {value!r} b", f"x\na {other!r} b").startswith("line 2 is ")


@pytest.mark.parametrize(
    ("committed", "again", "told"),
    [
        ({"verdict": "holds"}, {"verdict": "undecided"}, "verdict is 'holds', made again 'und"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is in one of the two only"),
        ({"a": 1}, {}, "a is in one of the two only"),
        ({"tests": [1, 2]}, {"tests": [1]}, "tests.length is another"),
        ({"p": None}, {"p": 0.0}, "p is None, made again 0.0"),
        ({"holds": True}, {"holds": 1.5}, "holds is True"),
        ([{"n": 1}], [{"n": "1"}], "0.n is 1, made again '1'"),
    ],
)
def test_the_first_difference_is_named(committed: Any, again: Any, told: str):
    assert difference(committed, again).startswith(told)


def test_text_of_another_length_differs():
    assert difference_of_text("a\nb", "a") == "the number of lines is another"
    assert difference_of_text("a 1", "a 1 2") != ""
