"""Time decoders side by side: rounds in which every method takes its turn.

The conditions of one batch size are measured together in one process: after a warm-up pass of each,
every round runs them one after the other. A machine that slows down or speeds up does so for all
of them, and ratios are taken within a round. The records are the lines of ``measurements.jsonl``.
A batch size is skipped if all its conditions have a record with their spec, so a killed measurement
continues with the batch size that it had reached.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch

from mars.decoding import in_order, longest_first
from mars.decoding.methods import BASELINES
from mars.errors import UserError
from mars.evaluation.scores import Score
from mars.provenance.files import read_jsonl, sha256_file, write_jsonl
from mars.provenance.record import hardware, versions
from mars.speed.methods import Condition, Pass, Skip, Workload, runner, timed_named
from mars.speed.rounds import Round, ratios, spread, take_turns

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
MEASUREMENTS = "measurements.jsonl"

Scorer = Callable[[list[list[int]]], Score]
"""The accuracy of a workload's continuations, in the order of its prompts."""
Records = dict[str, dict[str, Any]]
"""What was measured, by the full name of its condition."""


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
        timed = timed_named(method)
        if batch < 1:
            raise UserError(f"A batch size must be at least 1, not {batch}.")
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
    """Write a record of each condition that has none with its spec into the folder ``output``.

    Args:
        wanted: conditions; both baselines of each batch size are added to them.
        repeats: rounds at most, after one to warm up; fewer where their intervals are narrow.
        spec: what the numbers depend on beside workload and condition (code, versions).
        circumstances: as of :func:`circumstances`, to be written into every record.
        score: puts the accuracy into every record, outside the clock.

    Raises:
        UserError: fewer than 1 repeat, or a setting that cannot be decoded.
    """
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {repeats}.")
    order = longest_first(workload.prompts)  # as `decode` has them: batches of like length
    workload = replace(workload, prompts=[workload.prompts[index] for index in order])
    spec = workload.spec(repeats) | spec
    records = read_measurements(output)
    for batch, together in with_baselines(wanted).items():
        specs = {condition: {**spec, "cell": asdict(condition)} for condition in together}
        if all(records.get(c.full_name, {}).get("spec") == specs[c] for c in together):
            say(f"batch {batch}: measured before")
            continue

        def said(text: str, batch: int = batch) -> None:
            say(f"batch {batch}: {text}")

        timed_as = {condition: _timed_as(condition, workload) for condition in together}
        runners, skipped = _runners(workload, timed_as.values())
        load = [os.getloadavg()[0]]
        if load[0] > (os.cpu_count() or 1) / 2:
            say(f"the machine is busy (load {load[0]:.1f}): these numbers will be noisy")
        started = datetime.now(UTC).isoformat(timespec="seconds")
        outputs, rounds = take_turns(runners, repeats, said)
        load.append(os.getloadavg()[0])
        shared = {"label": workload.label, **circumstances, "started": started}
        for condition, twin in timed_as.items():
            if twin.name in skipped:
                result: dict[str, Any] = {"skipped": skipped[twin.name]}
            else:
                result = _result(twin, outputs, rounds) | shared | {"load_average": load}
                if score is not None:
                    answers = in_order(outputs[twin.name].tokens, order)
                    result["accuracy"] = score(answers)._asdict()
                if twin != condition:
                    result["timed_as"] = asdict(twin)
            name = condition.full_name
            records[name] = {"condition": name, "spec": specs[condition], **result}
        write_measurements(output, records)


def read_measurements(folder: Path) -> Records:
    """The records in a folder; none where there is no file yet."""
    path = folder / MEASUREMENTS
    return {one["condition"]: one for one in read_jsonl(path)} if path.is_file() else {}


def write_measurements(folder: Path, records: Records) -> None:
    """Write all records of a folder, atomically."""
    write_jsonl(folder / MEASUREMENTS, records.values())


def remove_others(folder: Path, wanted: Iterable[Condition]) -> None:
    """Drop records of an earlier run whose conditions are no longer wanted."""
    known = {one.full_name for group in with_baselines(wanted).values() for one in group}
    records = read_measurements(folder)
    if records.keys() - known:
        write_measurements(folder, {name: records[name] for name in records if name in known})


def _timed_as(condition: Condition, workload: Workload) -> Condition:
    """The condition whose passes count for this one too: a block need not exceed any answer."""
    if condition.cache_block is None:
        return condition
    return replace(condition, cache_block=min(condition.cache_block, workload.max_new_tokens))


def _runners(
    workload: Workload, together: Iterable[Condition]
) -> tuple[dict[str, Callable[[], Pass]], dict[str, str]]:
    """By name: what runs a condition, or why it cannot run here."""
    runners, skipped = {}, {}
    for condition in dict.fromkeys(together):
        try:
            runners[condition.name] = runner(workload, condition)
        except Skip as reason:
            skipped[condition.name] = str(reason)
    return runners, skipped


SPREAD = (
    *("tokens_per_second", "decode_tokens_per_second"),
    *("seconds", "prefill_seconds", "decode_seconds"),
)


def _result(condition: Condition, warm_up: dict[str, Pass], rounds: list[Round]) -> dict[str, Any]:
    """What was measured for one condition, without the circumstances."""
    outputs, greedy = warm_up[condition.name], warm_up["autoregressive"]
    passes = [results[condition.name] for results in rounds]
    per_forward = outputs.count / outputs.forwards
    over = {
        other: ratios(rounds, condition.name, other) for other in warm_up if other != condition.name
    }
    return {
        "sequences": len(outputs.done),
        "tokens": outputs.count,
        "forwards": outputs.forwards,
        "tokens_per_forward": per_forward,
        **{key: spread([getattr(one, key) for one in passes]) for key in SPREAD},
        "speedup_over": {name: spread(values) for name, values in over.items()},
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


def circumstances(command: str) -> dict[str, Any]:
    """What every record says of the machine, the software and the command."""
    return {
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "command": command,
        "gpu_driver": _gpu_driver(),
    }


def weights_of(checkpoint: Path) -> dict[str, str]:
    """sha256 of the weights that are decoded with, by file."""
    return {path.name: sha256_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}


def _gpu_driver() -> str | None:
    """Version of the GPU's driver and of CUDA; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, CUDA {torch.version.cuda}"
    return f"{answer.splitlines()[0].strip()}, CUDA {torch.version.cuda}"
