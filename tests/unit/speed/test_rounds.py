"""Rounds are taken until their intervals are narrow, which are Student's; no clock runs here."""

from __future__ import annotations

from math import inf, sqrt
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from mars.decoding.requests import Decoded
from mars.speed.methods import Pass
from mars.speed.rounds import FEWEST, PRECISE, half_width, imprecision, ratios, spread, take_turns

TIMES = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=9)


class Timed:
    """Decoders whose passes take the seconds given, the last of them again and again."""

    def __init__(self, **seconds: list[float]) -> None:
        self.turns: list[str] = []
        self.runners = {name: self.runner(name, times) for name, times in seconds.items()}

    def runner(self, name: str, times: list[float]):
        left = iter(times)

        def run() -> Pass:
            self.turns.append(name)
            return Pass([Decoded([1] * 12, 4, [12], "eos")], next(left, times[-1]))

        return run

    def take(self, limit: int):
        """The rounds without the warm-up, and what was said."""
        said: list[str] = []
        _, rounds = take_turns(self.runners, limit, said.append)
        return rounds, said


def of(seconds: list[float]) -> list[dict[str, Pass]]:
    """Rounds of a steady decoder and one that takes these seconds."""
    done = [Decoded([1], 1, [1], "eos")]
    return [{"first": Pass(done, 1.0), "second": Pass(done, one)} for one in seconds]


@given(TIMES)
def test_the_interval_is_that_of_students_t(values):
    found = spread(values)
    expected = student.interval(
        0.95, len(values) - 1, fmean(values), max(stdev(values), 1e-300) / sqrt(len(values))
    )
    assert found["interval"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(fmean(values))
    assert found["range"] == [min(values), max(values)]


def test_few_rounds_are_less_sure_than_a_normal_interval_says():
    values = [1.02, 1.05, 1.08]
    lower, _ = spread(values)["interval"]
    assert fmean(values) - 1.96 * stdev(values) / sqrt(3) > 1 > lower
    assert spread([1.0])["interval"] is None


def test_rounds_that_agree_end_early():
    rounds, _ = Timed(ar=[9.0, 2.0], mars=[9.0, 1.0]).take(limit=20)
    assert len(rounds) == FEWEST
    assert ratios(rounds, "mars", "ar") == [2.0] * FEWEST


def test_rounds_that_disagree_go_on_until_the_limit():
    restless = [1.0, *(1.0, 1.5) * 10]
    rounds, said = Timed(ar=[1.0], mars=restless).take(limit=7)
    assert len(rounds) == 7
    assert imprecision(rounds) > PRECISE
    assert "round 7 of at most 7" in said[-1]


def test_rounds_end_as_soon_as_the_widest_interval_is_narrow():
    # Restless at first: the ratio's interval narrows while it stays at rest.
    times = [1.0, 1.03, 1.0, 0.97, *[1.0] * 50]
    rounds, _ = Timed(ar=[1.0], steady=[2.0], mars=times).take(limit=50)
    assert FEWEST < len(rounds) < 50
    assert imprecision(rounds) < PRECISE
    assert all(imprecision(rounds[:count]) >= PRECISE for count in range(FEWEST, len(rounds)))


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_below_the_fewest_rounds_holds(limit):
    timed = Timed(ar=[1.0], mars=[1.0, 5.0])
    rounds, _ = timed.take(limit)
    assert len(rounds) == limit
    assert timed.turns == ["ar", "mars"] * (limit + 1)


def test_a_machine_that_drifts_widens_no_ratio():
    drift = [1.0, 1.0, 2.0, 4.0, 8.0]
    rounds, _ = Timed(ar=drift, mars=[one / 2 for one in drift]).take(limit=10)
    assert len(rounds) == FEWEST


def test_a_decoder_alone_is_judged_by_its_throughput():
    assert len(Timed(ar=[1.0]).take(limit=9)[0]) == FEWEST
    assert len(Timed(ar=[1.0, *(1.0, 1.5) * 9]).take(limit=9)[0]) == 9


@given(TIMES)
def test_imprecision_is_half_an_interval_over_its_mean(seconds):
    rounds = of(seconds)
    faster = ratios(rounds, "second", "first")
    assert imprecision(rounds) == pytest.approx(half_width(faster) / fmean(faster))
    assert imprecision(rounds[:1]) == inf
