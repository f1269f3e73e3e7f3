"""The stages that time decoding; each needs the machine to itself."""

from __future__ import annotations

from functools import partial
from typing import Any

from mars.config.experiment import (
    Benchmark,
    Experiment,
    InVllm,
    LiveTau,
    Speculative,
    WallClock,
)
from mars.data.stage import data_manifests
from mars.errors import UserError
from mars.provenance.fingerprint import project
from mars.provenance.stage import Job, Spec, Stage


class TimedSpec(Spec):
    """What is decoded under the clock, and with what precision, whatever is measured."""

    benchmark: Benchmark
    tau: float  # of the models that have one
    max_new_tokens: int
    precision: str
    generated_data: bool  # whether the benchmark is one of this project's miniatures


class WallClockSpec(TimedSpec):
    """Of Table 5 and the heat map."""

    section: WallClock


class SpeculativeSpec(TimedSpec):
    """Of Table 6."""

    section: Speculative


class LiveTauSpec(TimedSpec):
    """Of the figure of the live tau."""

    section: LiveTau


class VllmSpec(TimedSpec):
    """Of the rows of Table 6 that are timed in vLLM; ``requirements``: what is installed for it."""

    section: InVllm
    requirements: list[str]


def resolve(experiment: Experiment, part: str, spec: type[TimedSpec]) -> TimedSpec:
    """What ``part``, a key of the section `speed`, depends on.

    Raises:
        UserError: the experiment has no such part.
    """
    speed = experiment.speed
    section = speed and speed.parts()[part]
    if speed is None or section is None:
        raise UserError(f"{experiment.experiment} times nothing here: it has no `speed.{part}`.")
    fields: dict[str, Any] = {
        "benchmark": experiment.benchmarks[speed.benchmark],
        "tau": speed.tau,
        "max_new_tokens": speed.max_new_tokens,
        "precision": experiment.evaluation.precision,
        "generated_data": experiment.generated,
        "section": section,
    }
    if spec is VllmSpec:
        fields["requirements"] = pins_of_vllm()
    return spec(**fields)


def pins_of_vllm() -> list[str]:
    """The packages that `make vllm-env` installs, which are not in the lock."""
    lines = (project() / "requirements-vllm.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def inputs(experiment: Experiment, part: str) -> list[str]:
    """What the measurement of ``part`` reads, by path inside the folder of results."""
    speed = experiment.speed
    if speed is None:
        return []
    models = dict.fromkeys(n for k, n in speed.models().items() if k.startswith(f"{part}."))
    data = data_manifests(experiment, [experiment.benchmarks[speed.benchmark].dataset])
    return [*data, *(f"checkpoints/{model}/manifest.json" for model in models)]


def run_wall_clock(spec: WallClockSpec, job: Job) -> None:
    """Time decoding methods, batch sizes and cache granularities: Table 5 and the heat map."""
    from mars.speed.wall_clock import measure_wall_clock

    measure_wall_clock(spec, job)


def run_speculative(spec: SpeculativeSpec, job: Job) -> None:
    """Time MARS together with speculative decoding: Table 6."""
    from mars.speed.speculative import measure_speculative

    measure_speculative(spec, job)


def run_live_tau(spec: LiveTauSpec, job: Job) -> None:
    """Serve a load that rises and falls with tau fixed and with tau adapted to the queue."""
    from mars.speed.live_tau import measure_live_tau

    measure_live_tau(spec, job)


def run_vllm(spec: VllmSpec, job: Job) -> None:
    """Time drafts in stock vLLM: rows of Table 6 beyond the paper."""
    from mars.speed.vllm import measure_vllm

    measure_vllm(spec, job)


MEASURE: dict[str, Stage[Any]] = {
    name: Stage(
        f"measure_{name}",
        kind,
        partial(resolve, part=name, spec=kind),
        function,
        partial(inputs, part=name),
        rule="measure",
        packages=("accelerate",),  # lm-eval imports it for a Hugging Face model, not requiring it
    )
    for name, kind, function in (
        ("wall_clock", WallClockSpec, run_wall_clock),
        ("speculative", SpeculativeSpec, run_speculative),
        ("live_tau", LiveTauSpec, run_live_tau),
        ("vllm", VllmSpec, run_vllm),
    )
}
