"""The live tau with a clock that tests compute: every step of the engine takes one second."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from mars.config.experiment import LiveTau
from mars.decoding import decode
from mars.decoding.cache import CachedModel
from mars.decoding.cursor import Engine
from mars.decoding.policy import adaptive, fixed
from mars.provenance.files import read_json
from mars.speed import live_tau
from mars.speed.live_tau import Arrival, Served, correctness, serve, summary, trace
from tests.support.fixed_steps import Eagerly


class Clock:
    """Stands still but for steps and sleeps."""

    time = 0.0

    def perf_counter(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


class TimedEngine(Engine):
    """An engine whose steps take a second of its clock."""

    clock: Clock

    def step(self):
        self.clock.time += 1.0
        return super().step()


def engine_for(workload, slots=2):
    engine = TimedEngine(
        workload.model,
        block_size=workload.block_size,
        mask_token_id=workload.mask_token_id,
        eos=frozenset(),
        slots=slots,
        max_length=64,
    )
    engine.clock = Clock()
    return engine


def go(workload, arrivals, policy, **options):
    engine = engine_for(workload)
    served, timeline = serve(
        engine, workload.prompts, arrivals, policy, max_new_tokens=12, clock=engine.clock, **options
    )
    assert not engine.results
    return served, timeline


RUSH = [Arrival(0.5 * number, number % 5) for number in range(20)]


def test_requests_are_answered_as_they_would_be_alone(workload):
    served, _ = go(workload, RUSH, fixed(None))
    alone = decode(
        workload.model,
        workload.prompts,
        block_size=1,
        threshold=None,
        max_new_tokens=12,
        eos_token_id=None,
        mask_token_id=workload.mask_token_id,
    )
    assert [one.tokens for one in served] == [alone[at.question].tokens for at in RUSH]
    assert [one.arrival for one in served] == [at.time for at in RUSH]
    assert all(one.arrival <= one.start < one.end for one in served)
    assert all(one.forwards == 12 for one in served)


def test_a_request_alone_waits_for_nothing(workload):
    (first, second), timeline = go(workload, [Arrival(3.0, 0), Arrival(50.0, 1)], fixed(None))
    assert (first.start, first.end) == (3.0, 15.0)
    assert (second.start, second.end) == (50.0, 62.0)
    assert timeline[-1]["time"] == 62.0
    assert sum(entry["active"] for entry in timeline[-1:]) == 0


def test_a_lower_tau_and_the_controller_shorten_the_queue(workload):
    latencies, taus = {}, {}
    policies = {"one": fixed(None), "low": fixed(0.0), "live": adaptive(high=0.9, low=0, slots=2)}
    for name, policy in policies.items():
        served, timeline = go(workload, RUSH, policy, interval=1.0)
        latencies[name] = summary(served, [1.0] * len(served))["latency"]["median"]
        taus[name] = {entry["tau"] for entry in timeline}
    assert latencies["low"] <= latencies["live"] < latencies["one"] / 2
    assert taus["one"] == {1.0}
    assert taus["low"] == {0.0}
    assert {0.0, 1.0} < taus["live"]  # the whole scale, in one engine


def test_the_timeline_counts_every_token(workload):
    served, timeline = go(workload, RUSH, fixed(0.5), interval=2.0)
    times = [0.0, *(entry["time"] for entry in timeline)]
    counted = [
        entry["tokens_per_second"] * (end - start)
        for entry, start, end in zip(timeline, times[:-1], times[1:], strict=True)
    ]
    assert sum(counted) == pytest.approx(sum(len(one.tokens) for one in served))
    assert all(end - start >= 2.0 for start, end in pairwise(times[:-1]))
    assert max(entry["queue"] for entry in timeline) > 2


def test_the_load_rises_to_its_peak_and_falls():
    loads = {"capacity": 10.0, "quiet_load": 0.5, "peak_load": 2.0, "seed": 1}
    arrivals = trace(requests=3000, questions=50, **loads)
    assert arrivals == trace(requests=3000, questions=50, **loads)
    times = [arrival.time for arrival in arrivals]
    assert times == sorted(times)
    rates = [200 / (times[at + 100] - times[at - 100]) for at in (100, 1500, 2899)]
    assert rates == pytest.approx([5.5, 19.5, 5.5], rel=0.2)
    asked = [arrival.question for arrival in arrivals]
    assert {asked.count(question) for question in range(50)} == {60}


class Sheet:
    """Scores an answer by whether it is the number of its question."""

    def __len__(self):
        return 3

    def scores(self, answers):
        return [float(answer == [question]) for question, answer in enumerate(answers)]


def test_every_request_gets_its_own_score():
    served = [
        Served(0.0, question, end=1.0, tokens=[answer], forwards=1)
        for question, answer in [(2, 2), (0, 1), (2, 0), (0, 0), (1, 1), (2, 2)]
    ]
    scores = correctness(Sheet(), served)
    assert scores == [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    record = summary(served, scores)
    assert record["accuracy"] == pytest.approx(4 / 6)
    assert [request["correct"] for request in record["requests"]] == scores
    assert record["throughput"] == pytest.approx(6.0)


class EverythingIsRight:
    """Scores every answer 1."""

    def __init__(self, workload):
        self.count = len(workload.prompts)

    def __len__(self):
        return self.count

    def scores(self, answers):
        return [1.0] * len(answers)


def test_policies_take_turns_and_none_pays_for_graphs(workload, tmp_path, monkeypatch):
    section = LiveTau(model="m", requests=8, slots=2, quiet_load=5, peak_load=9, traces=3, seed=5)
    benchmark = SimpleNamespace(task="sums")
    spec = SimpleNamespace(section=section, max_new_tokens=8, tau=0.9, benchmark=benchmark)
    job = SimpleNamespace(output=tmp_path / "live", spec=SimpleNamespace(job="job"))
    questions = EverythingIsRight(workload), workload
    monkeypatch.setattr(live_tau, "questions_for", lambda *_: questions)
    monkeypatch.setattr(live_tau, "circumstances", lambda job: {})
    graphs, captured = Eagerly(), []
    monkeypatch.setattr(CachedModel, "graphs", lambda self: graphs)

    def watched(*arguments, serve=live_tau.serve, **options):
        captured.append(set(graphs.keys))
        return serve(*arguments, **options)

    monkeypatch.setattr(live_tau, "serve", watched)
    live_tau.measure_live_tau(spec, job)
    assert captured == [graphs.keys] * 9  # nothing is left to capture once the clock runs
    records = {
        name: read_json(tmp_path / "live" / f"{name}.json")
        for name in ("tau-1", "tau-low", "adaptive")
    }
    for record in records.values():
        runs = [record, *record["further_traces"]]
        assert [run["trace"]["seed"] for run in runs] == [5, 6, 7]
        assert sorted(run["trace"]["turn"] for run in runs) == [0, 1, 2]
        assert all(len(run["requests"]) == 8 and run["timeline"] for run in runs)
        assert len({run["requests"][0]["arrival"] for run in runs}) == 3
    for runs in zip(*([one, *one["further_traces"]] for one in records.values()), strict=True):
        arrivals = [[request["arrival"] for request in run["requests"]] for run in runs]
        assert arrivals[0] == arrivals[1] == arrivals[2]
        assert sorted(run["trace"]["turn"] for run in runs) == [0, 1, 2]
