"""Time decoders side by side: rounds in which every method takes its turn, a record per condition.

The conditions of one batch size are measured together in one process: after a warm-up pass of each,
every round runs them one after the other. A machine that slows down or speeds up does so for all
of them, and ratios are taken within a round. A batch size is left alone if all its conditions have
a record with their spec, so a killed measurement goes on with the batch size it was at.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from mars.decoding.methods import BASELINES, TIMED
from mars.errors import UserError
from mars.evaluation.scores import Score
from mars.provenance.files import read_json, write_json
from mars.speed.methods import Condition, Pass, Skip, Workload, runner


class Named(Protocol):
    """Whatever takes turns goes by a name."""

    @property
    def name(self) -> str: ...


Turn = TypeVar("Turn", bound=Named)
Runners = dict[Condition, Callable[[], Pass]]
Scorer = Callable[[list[list[int]]], Score]
"""The accuracy of a workload's continuations, in the order of its prompts."""


def conditions(
    methods: Iterable[str],
    batches: Iterable[int],
    taus: Iterable[float | None],
    cache_blocks: Iterable[int],
) -> list[Condition]:
    """Every combination that differs for its method: some have no tau, most no cache block.

    Raises:
        UserError: unknown method, or a batch size below 1.
    """
    found: dict[Condition, None] = {}
    for method, batch, tau, block in product(methods, batches, taus, cache_blocks):
        if method not in TIMED:
            raise UserError(f"Unknown method {method!r}: choose from {', '.join(TIMED)}.")
        if batch < 1:
            raise UserError(f"A batch size must be at least 1, not {batch}.")
        timed = TIMED[method]
        tau, cache_block = tau if timed.has_tau else None, block if timed.has_cache_block else None
        found[Condition(method, batch, tau, cache_block)] = None
    return list(found)


def with_baselines(wanted: Iterable[Condition]) -> dict[int, list[Condition]]:
    """The conditions by batch size, the baselines of each first."""
    found: dict[int, dict[Condition, None]] = {}
    for condition in wanted:
        baselines = (Condition(method, condition.batch) for method in BASELINES)
        found.setdefault(condition.batch, dict.fromkeys(baselines))[condition] = None
    return {batch: list(together) for batch, together in found.items()}


def measure(
    workload: Workload,
    wanted: Iterable[Condition],
    *,
    repeats: int,
    output: Path,
    spec: dict[str, Any],
    circumstances: Mapping[str, Any],
    score: Scorer | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write ``output/batch-NNN/<condition>.json`` for each that is not there with its spec.

    Args:
        wanted: conditions; both baselines of each batch size are added to them.
        repeats: rounds, after one to warm up.
        spec: whatever the numbers depend on, apart from the condition; compared on the next run.
        circumstances: facts to be written into every record (model, hardware, versions).
        score: puts the accuracy into every record, outside the clock.

    Raises:
        UserError: fewer than 1 repeat, or a setting that cannot be decoded.
    """
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {repeats}.")
    for batch, together in with_baselines(wanted).items():
        if all(_is_measured(output, condition, spec) for condition in together):
            say(f"batch {batch}: measured before")
            continue

        def said(text: str, batch: int = batch) -> None:
            say(f"batch {batch}: {text}")

        timed_as = {condition: _timed_as(condition, workload) for condition in together}
        runners, skipped = _runners(workload, dict.fromkeys(timed_as.values()))
        load = [os.getloadavg()[0]]
        if load[0] > (os.cpu_count() or 1) / 2:
            say(f"the machine is busy (load {load[0]:.1f}): these numbers will be noisy")
        started = datetime.now(UTC).isoformat(timespec="seconds")
        outputs, rounds = take_turns(runners, repeats, said)
        load.append(os.getloadavg()[0])
        shared = {**circumstances, "started": started, "load_average": load}
        for condition, twin in timed_as.items():
            if twin in skipped:
                result: dict[str, Any] = {"skipped": skipped[twin]}
            else:
                result = _result(twin, outputs, rounds) | shared
                if score is not None:
                    result["accuracy"] = score(outputs[twin].tokens)._asdict()
                if twin != condition:
                    result["timed_as"] = asdict(twin)
            own_spec = spec | condition.as_spec()
            write_json(output / condition.file, {"spec": own_spec, **result})


def _timed_as(condition: Condition, workload: Workload) -> Condition:
    """Whose pass is this one's, too: a cache block that holds any answer is never filled."""
    if condition.cache_block is None:
        return condition
    return replace(condition, cache_block=min(condition.cache_block, workload.max_new_tokens))


def _is_measured(output: Path, condition: Condition, spec: dict[str, Any]) -> bool:
    path = output / condition.file
    return path.is_file() and read_json(path).get("spec") == spec | condition.as_spec()


def _runners(
    workload: Workload, together: Iterable[Condition]
) -> tuple[Runners, dict[Condition, str]]:
    runners: Runners = {}
    skipped: dict[Condition, str] = {}
    for condition in together:
        try:
            runners[condition] = runner(workload, condition)
        except Skip as reason:
            skipped[condition] = str(reason)
    return runners, skipped


def take_turns(
    runners: Mapping[Turn, Callable[[], Pass]], repeats: int, say: Callable[[str], None]
) -> tuple[dict[Turn, Pass], list[dict[Turn, Pass]]]:
    """A warm-up pass of each runner, then rounds in which each takes its turn; both results."""
    start = monotonic()
    warm_up = {}
    for turn, run in runners.items():
        warm_up[turn] = run()
        say(f"warm-up of {turn.name}, {warm_up[turn].seconds:.1f} s")
    expected = monotonic() - start
    say(f"{repeats} rounds of about {expected:.0f} s, {repeats * expected / 60:.1f} minutes")
    gc.collect()
    gc.freeze()  # so that the collections between passes have little to look at
    rounds = []
    for number in range(1, repeats + 1):
        start = monotonic()
        results = {}
        for turn, run in runners.items():
            gc.collect()
            results[turn] = run()
        rounds.append(results)
        say(f"round {number} of {repeats}, {monotonic() - start:.0f} s")
    gc.unfreeze()
    return warm_up, rounds


def _result(
    condition: Condition, warm_up: dict[Condition, Pass], rounds: list[dict[Condition, Pass]]
) -> dict[str, Any]:
    """What is known of one condition, apart from its circumstances."""
    outputs = warm_up[condition]
    greedy = warm_up[Condition("autoregressive", condition.batch)]
    passes = [results[condition] for results in rounds]
    per_forward = outputs.count / sum(outputs.forwards)
    over = {
        other.name: [
            results[condition].throughput / results[other].throughput for results in rounds
        ]
        for other in warm_up
        if other != condition
    }
    return {
        "sequences": len(outputs.tokens),
        "tokens": outputs.count,
        "forwards": sum(outputs.forwards),
        "tokens_per_forward": per_forward,
        "tokens_per_second": spread([one.throughput for one in passes]),
        "decode_tokens_per_second": spread([one.decode_throughput for one in passes]),
        "seconds": spread([one.seconds for one in passes]),
        "prefill_seconds": spread([one.prefill_seconds for one in passes]),
        "decode_seconds": spread([one.decode_seconds for one in passes]),
        "speedup_over": {name: spread(ratios) for name, ratios in over.items()},
        "efficiency_over": {
            name: spread([ratio / per_forward for ratio in over[name]])
            for name in BASELINES
            if name in over
        },
        "equal_to_greedy": {
            "sequences": sum(map(list.__eq__, outputs.tokens, greedy.tokens)),
            "required": condition.lossless,
        },
        "repeats_agree": all(one.tokens == outputs.tokens for one in passes),
        "threads": torch.get_num_threads(),
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median, quartiles, extremes and the values themselves."""
    low, quarter, median, three_quarters, high = np.percentile(values, [0, 25, 50, 75, 100])
    return {
        "median": float(median),
        "quartiles": [float(quarter), float(three_quarters)],
        "range": [float(low), float(high)],
        "values": values,
    }
