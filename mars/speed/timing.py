"""Time decoders side by side: rounds in which every method takes its turn, a record per cell.

The cells of one batch size are measured together in one process: after a warm-up pass of each,
every round runs them one after the other. A machine that slows down or speeds up does so for all
of them, and ratios are taken within a round. A batch size all of whose cells have a record with
their spec is left alone, so a killed measurement goes on with the batch size it was at.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from mars.errors import UserError
from mars.evaluation.scores import Score
from mars.provenance.files import read_json, write_json
from mars.speed.methods import BASELINES, METHODS, Cell, Run, Skip, Workload, runner


class Named(Protocol):
    """Whatever takes turns goes by a name."""

    @property
    def name(self) -> str: ...


Turn = TypeVar("Turn", bound=Named)
Runners = dict[Cell, Callable[[], Run]]
Scorer = Callable[[list[list[int]]], Score]
"""The accuracy of a workload's continuations, in the order of its prompts."""


def cells(
    methods: Iterable[str],
    batches: Iterable[int],
    taus: Iterable[float | None],
    cache_blocks: Iterable[int],
) -> list[Cell]:
    """Every combination that differs for its method: baselines have no tau, one cache no block.

    Raises:
        UserError: unknown method, or a batch size below 1.
    """
    found: dict[Cell, None] = {}
    for method, batch, tau, block in product(methods, batches, taus, cache_blocks):
        if method not in METHODS:
            raise UserError(f"Unknown method {method!r}: choose from {', '.join(METHODS)}.")
        if batch < 1:
            raise UserError(f"A batch size must be at least 1, not {batch}.")
        baseline = method in BASELINES or method == "hf-static"
        cached = method.startswith("block_cache")
        cell = Cell(method, batch, None if baseline else tau, block if cached else None)
        found[cell] = None
    return list(found)


def measure(
    work: Workload,
    wanted: Iterable[Cell],
    *,
    repeats: int,
    output: Path,
    spec: dict[str, Any],
    about: dict[str, Any],
    score: Scorer | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write ``output/batch-NNN/<cell>.json`` for every cell that is not there with its spec.

    Args:
        wanted: cells; both baselines of each batch size are added to them.
        repeats: rounds, after one to warm up.
        spec: whatever the numbers depend on, apart from the cell; compared on the next run.
        about: facts to be written into every record (model, hardware, versions).
        score: puts the accuracy into every record, outside the clock.

    Raises:
        UserError: fewer than 1 repeat, or a setting that cannot be decoded.
    """
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {repeats}.")
    by_batch: dict[int, dict[Cell, None]] = {}
    for cell in wanted:
        baselines = (Cell(method, cell.batch) for method in BASELINES)
        by_batch.setdefault(cell.batch, dict.fromkeys(baselines))[cell] = None
    for batch, together in by_batch.items():
        if all(_is_measured(output, cell, spec) for cell in together):
            say(f"batch {batch}: measured before")
            continue
        timed_as = {cell: _timed_as(cell, work) for cell in together}
        runners, skipped = _runners(work, dict.fromkeys(timed_as.values()))
        load = [os.getloadavg()[0]]
        if load[0] > (os.cpu_count() or 1) / 2:
            say(f"the machine is busy (load {load[0]:.1f}): these numbers will be noisy")
        started = datetime.now(UTC).isoformat(timespec="seconds")
        outputs, rounds = take_turns(runners, repeats, partial(_said, say, batch))
        load.append(os.getloadavg()[0])
        shared = {**about, "started": started, "load_average": load}
        for cell, twin in timed_as.items():
            if twin in skipped:
                result: dict[str, Any] = {"skipped": skipped[twin]}
            else:
                result = _result(twin, outputs, rounds) | shared
                if score is not None:
                    result["accuracy"] = score(outputs[twin].tokens)._asdict()
                if twin != cell:
                    result["timed_as"] = twin.as_dict()
            write_json(output / cell.file, {"spec": spec | {"cell": cell.as_dict()}, **result})


def _timed_as(cell: Cell, work: Workload) -> Cell:
    """The cell whose pass is this one's: a cache block that holds any answer is never filled."""
    if cell.cache_block is None:
        return cell
    return replace(cell, cache_block=min(cell.cache_block, work.max_new_tokens))


def _said(say: Callable[[str], None], batch: int, text: str) -> None:
    say(f"batch {batch}: {text}")


def _is_measured(output: Path, cell: Cell, spec: dict[str, Any]) -> bool:
    path = output / cell.file
    return path.is_file() and read_json(path).get("spec") == spec | {"cell": cell.as_dict()}


def _runners(work: Workload, together: Iterable[Cell]) -> tuple[Runners, dict[Cell, str]]:
    runners: Runners = {}
    skipped: dict[Cell, str] = {}
    for cell in together:
        try:
            runners[cell] = runner(work, cell)
        except Skip as reason:
            skipped[cell] = str(reason)
    return runners, skipped


def take_turns(
    runners: Mapping[Turn, Callable[[], Run]], repeats: int, say: Callable[[str], None]
) -> tuple[dict[Turn, Run], list[dict[Turn, Run]]]:
    """A warm-up pass of each runner, then rounds in which each takes its turn; both results."""
    start = monotonic()
    warm_up = {}
    for cell, run in runners.items():
        warm_up[cell] = run()
        say(f"warm-up of {cell.name}, {warm_up[cell].seconds:.1f} s")
    expected = monotonic() - start
    say(f"{repeats} rounds of about {expected:.0f} s, {repeats * expected / 60:.1f} minutes")
    gc.collect()
    gc.freeze()  # so that the collections between passes have little to look at
    rounds = []
    for number in range(1, repeats + 1):
        start = monotonic()
        results = {}
        for cell, run in runners.items():
            gc.collect()
            results[cell] = run()
        rounds.append(results)
        say(f"round {number} of {repeats}, {monotonic() - start:.0f} s")
    gc.unfreeze()
    return warm_up, rounds


def _result(cell: Cell, warm_up: dict[Cell, Run], rounds: list[dict[Cell, Run]]) -> dict[str, Any]:
    """What is known of one cell, apart from its circumstances."""
    outputs = warm_up[cell]
    greedy = warm_up[Cell("autoregressive", cell.batch)]
    runs = [results[cell] for results in rounds]
    per_forward = outputs.count / sum(outputs.forwards)
    over = {
        other.name: [results[cell].throughput / results[other].throughput for results in rounds]
        for other in warm_up
        if other != cell
    }
    return {
        "sequences": len(outputs.tokens),
        "tokens": outputs.count,
        "forwards": sum(outputs.forwards),
        "tokens_per_forward": per_forward,
        "tokens_per_second": spread([run.throughput for run in runs]),
        "decode_tokens_per_second": spread([run.decode_throughput for run in runs]),
        "seconds": spread([run.seconds for run in runs]),
        "prefill_seconds": spread([run.prefill_seconds for run in runs]),
        "decode_seconds": spread([run.decode_seconds for run in runs]),
        "speedup_over": {name: spread(ratios) for name, ratios in over.items()},
        "efficiency_over": {
            name: spread([ratio / per_forward for ratio in over[name]])
            for name in BASELINES
            if name in over
        },
        "equal_to_greedy": {
            "sequences": sum(map(list.__eq__, outputs.tokens, greedy.tokens)),
            "required": cell.greedy,
        },
        "repeats_agree": all(run.tokens == outputs.tokens for run in runs),
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
