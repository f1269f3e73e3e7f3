"""tau as a live knob: one running engine, a load that rises and falls, three ways to set tau.

The same requests arrive at the same moments under each policy: tau fixed at 1, tau fixed low, and
tau set by a small controller from the length of the queue. Nothing is restarted in between; the
controller changes tau of the running engine between two steps.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mars.decoding.cache import attention_of
from mars.decoding.cursor import Engine
from mars.decoding.policy import Policy, adaptive, fixed
from mars.decoding.requests import Request
from mars.evaluation.scores import mean
from mars.provenance.files import write_json
from mars.provenance.manifest import new_folder
from mars.speed.methods import stopwatch
from mars.speed.questions import Questions, questions_for
from mars.speed.timing import circumstances

if TYPE_CHECKING:
    from mars.provenance.stage import Job
    from mars.speed.stage import LiveTauSpec

ENTRIES = 50  # of a timeline, while requests arrive


@dataclass(frozen=True)
class Arrival:
    """When a request comes, in seconds from the start, and which question it asks."""

    time: float
    question: int


@dataclass
class Served:
    """One request as it went: moments in seconds from the start, its answer, its forwards."""

    arrival: float
    question: int
    start: float = 0.0
    end: float = 0.0
    tokens: list[int] = field(default_factory=list)
    forwards: int = 0

    @property
    def latency(self) -> float:
        return self.end - self.arrival


def trace(
    *,
    requests: int,
    questions: int,
    capacity: float,
    quiet_load: float,
    peak_load: float,
    seed: int,
) -> list[Arrival]:
    """Requests at random moments whose rate rises from quiet to peak and falls back.

    Args:
        requests: how many; the middle one arrives at the peak.
        questions: how many there are to ask; all are asked about equally often.
        capacity: requests per second that the engine can serve at tau = 1.
        quiet_load, peak_load: rates as multiples of ``capacity``.
    """
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < requests:
        order += rng.sample(range(questions), questions)
    now, arrivals = 0.0, []
    for number in range(requests):
        height = 1 - abs(2 * number / requests - 1)
        load = quiet_load + (peak_load - quiet_load) * height
        now += rng.expovariate(capacity * load)
        arrivals.append(Arrival(now, order[number]))
    return arrivals


def serve(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    arrivals: Sequence[Arrival],
    policy: Policy,
    *,
    max_new_tokens: int,
    clock: Any = time,
    interval: float | None = None,
) -> tuple[list[Served], list[dict[str, Any]]]:
    """Feed the requests to the engine as they arrive, until all are answered.

    Args:
        clock: has ``perf_counter`` and ``sleep``, as the module ``time``.
        interval: seconds between two entries of the timeline; default a share of the trace.

    Returns:
        The requests in order of arrival, and the timeline: every ``interval`` seconds tau, the
        requests that wait and run, and the tokens per second since the entry before.
    """
    interval = arrivals[-1].time / ENTRIES if interval is None else interval
    desk = _Desk(engine, prompts, deque(arrivals), policy, max_new_tokens, clock)
    timeline: list[dict[str, Any]] = []
    with attention_of(engine.cached.model):
        while desk.open:
            desk.admit()
            desk.step()
            last = timeline[-1]["time"] if timeline else 0.0
            if desk.now() >= last + interval or not desk.open:
                timeline.append(desk.entry(last))
    return desk.served, timeline


@dataclass
class _Desk:
    """Between the arrivals and the engine: submits what is due and notes what happens when."""

    engine: Engine
    prompts: Sequence[Sequence[int]]
    expected: deque[Arrival]
    policy: Policy
    max_new_tokens: int
    clock: Any
    served: list[Served] = field(default_factory=list)
    waiting: dict[int, Served] = field(default_factory=dict)
    running: dict[int, Served] = field(default_factory=dict)
    tokens: int = 0  # since the last entry of the timeline

    def __post_init__(self) -> None:
        self.tau, self.start = self.policy(0), self.clock.perf_counter()

    @property
    def open(self) -> bool:
        return bool(self.expected or self.waiting or self.running)

    def now(self) -> float:
        return self.clock.perf_counter() - self.start

    def admit(self) -> None:
        """Queue the requests that have arrived; with nothing else to do, wait for the next."""
        if not (self.waiting or self.running):
            self.clock.sleep(max(0.0, self.expected[0].time - self.now()))
        while self.expected and self.expected[0].time <= self.now():
            arrival = self.expected.popleft()
            request = Request(self.prompts[arrival.question], self.tau, self.max_new_tokens)
            served = Served(arrival.time, arrival.question)
            self.served.append(served)
            self.waiting[self.engine.submit(request)] = served

    def step(self) -> None:
        """Let the policy set tau, then one step of the engine."""
        if not (self.waiting or self.running):
            return  # a sleep may end a moment early
        tau = self.policy(len(self.waiting))
        if tau != self.tau:
            self.tau = tau
            self.engine.set_threshold(tau)
        before = self.now()
        new = self.engine.step()
        after = self.now()
        self.tokens += sum(map(len, new.values()))
        for identity in [identity for identity in new if identity in self.waiting]:
            self.running[identity] = self.waiting.pop(identity)
            self.running[identity].start = before
        for identity in self.engine.ended:
            served, done = self.running.pop(identity), self.engine.results.pop(identity)
            served.end, served.tokens, served.forwards = after, done.tokens, done.forwards

    def entry(self, last: float) -> dict[str, Any]:
        """The timeline's entry for the time since ``last``."""
        now, tokens, self.tokens = self.now(), self.tokens, 0
        return {
            "time": now,
            "tau": 1.0 if self.tau is None else self.tau,
            "queue": len(self.waiting),
            "active": len(self.running),
            "tokens_per_second": tokens / (now - last),
        }


def measure_live_tau(spec: LiveTauSpec, job: Job) -> None:
    """Serve every trace under each policy: ``tau-1.json``, ``tau-low.json``, ``adaptive.json``.

    The highest tau of the adaptive policy is the spec's. What the first policy would otherwise pay
    for is done before: all CUDA graphs are captured, and the capacity is measured, both taus once
    to warm up. The policies take turns at being the first.

    A record has what :func:`summary` says of the first trace, its timeline and its settings. Under
    ``further_traces`` it has the same of each of the others.
    """
    section, budget = spec.section, spec.max_new_tokens
    low, slots = section.low, section.slots
    questions, workload = questions_for(spec, section.questions, job)
    prompts, engine = workload.prompts, workload.engine(slots)
    engine.warm_up(min(map(len, prompts)))
    for warm_up in (low, None):
        capacity(engine, prompts, warm_up, budget)
    measured = {
        "tau-1": capacity(engine, prompts, None, budget),
        "tau-low": capacity(engine, prompts, low, budget),
    }
    load = section.model_dump(include={"requests", "quiet_load", "peak_load"})
    facts = circumstances(job.spec.job)
    policies = {
        "tau-1": fixed(None),
        "tau-low": fixed(low),
        "adaptive": adaptive(high=spec.tau, low=low, slots=slots),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in policies}
    for number in range(section.traces):
        settings = {**load, "seed": section.seed + number}
        arrivals = trace(questions=len(prompts), capacity=measured["tau-1"], **settings)
        for turn, name in enumerate(rotated(list(policies), number)):
            print(
                f"trace {number + 1} of {section.traces}, {name}: "
                f"{section.requests} requests in {arrivals[-1].time:.1f} s",
                flush=True,
            )
            served, timeline = serve(
                engine, prompts, arrivals, policies[name], max_new_tokens=budget
            )
            run = {
                **summary(served, correctness(questions, served)),
                "timeline": timeline,
                "trace": {**settings, "questions": len(prompts), "turn": turn},
            }
            runs[name].append(run)
    shared = {
        "tau": {"high": spec.tau, "low": low},
        "capacity_requests_per_second": measured,
        "slots": slots,
        "block_size": workload.block_size,
        "max_new_tokens": budget,
        "benchmark": spec.benchmark.task,
        "model": workload.label,
        **workload.identity,
        "threads": torch.get_num_threads(),
        **facts,
    }
    with new_folder(job.output) as output:
        for name, (first, *others) in runs.items():
            record = {"policy": name, **first, "further_traces": others, **shared}
            write_json(output / f"{name}.json", record)


def rotated(names: Sequence[str], turns: int) -> list[str]:
    """The names with another one at the front each turn."""
    first = turns % len(names)
    return [*names[first:], *names[:first]]


def capacity(
    engine: Engine, prompts: Sequence[Sequence[int]], tau: float | None, max_new_tokens: int
) -> float:
    """Requests per second with all prompts in the queue from the start."""
    with stopwatch(engine.cached.model) as seconds:
        engine.answer(Request(prompt, tau, max_new_tokens) for prompt in prompts)
    return len(prompts) / seconds()


def correctness(questions: Questions, served: Sequence[Served]) -> list[float]:
    """The benchmark's score of every request; the n-th answers to all questions are one pass."""
    passes: defaultdict[int, dict[int, int]] = defaultdict(dict)  # question -> index in ``served``
    asked: Counter[int] = Counter()
    for index, request in enumerate(served):
        passes[asked[request.question]][request.question] = index
        asked[request.question] += 1
    scores = [0.0] * len(served)
    for places in passes.values():
        answers = [
            served[places[question]].tokens if question in places else []
            for question in range(len(questions))
        ]
        found = questions.scores(answers)
        for question, index in places.items():
            scores[index] = found[question]
    return scores


def summary(served: Sequence[Served], scores: Sequence[float]) -> dict[str, Any]:
    """The requests one by one, and their latencies, throughput and accuracy as a whole."""
    latencies = [request.latency for request in served]
    median, p95 = np.percentile(latencies, [50, 95])
    tokens = sum(len(request.tokens) for request in served)
    forwards = sum(request.forwards for request in served)
    span = max(request.end for request in served) - served[0].arrival
    accuracy = mean(scores)
    return {
        "latency": {"median": float(median), "p95": float(p95), "max": max(latencies)},
        "throughput": tokens / span,
        "accuracy": accuracy.value,
        "accuracy_stderr": accuracy.stderr,
        "tokens_per_forward": tokens / forwards,
        "requests": [
            {**asdict(request), "tokens": len(request.tokens), "correct": score}
            for request, score in zip(served, scores, strict=True)
        ],
    }
