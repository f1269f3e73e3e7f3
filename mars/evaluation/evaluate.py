"""Evaluate one checkpoint: several benchmarks under several settings, in one process.

For each cell (setting, benchmark) two files: ``<setting>/<benchmark>.json``, the record, and
``<setting>/<benchmark>.samples.jsonl``, one line per document. A cell whose record is there and
was made from the same ``cell_spec`` is kept, so a killed evaluation continues where it stopped.
"""

from __future__ import annotations

import platform
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from lm_eval.evaluator import evaluate as lm_evaluate

from mars.evaluation.adapter import COUNTING, DecodingLM
from mars.evaluation.code_execution import CODE_EVAL
from mars.evaluation.completion_server import Server
from mars.evaluation.endpoint import EndpointLM
from mars.evaluation.offline import prepare_process
from mars.evaluation.scores import headline, mean, ratio
from mars.evaluation.tasks import LoadedBenchmark, load_benchmark, read_documents
from mars.provenance.files import canonical_json, read_json, sha256_file, write_json, write_jsonl
from mars.provenance.record import versions

if TYPE_CHECKING:
    from mars.config.experiment import Benchmark, Endpoint, Setting
    from mars.evaluation.stage import EvaluationSpec

CellSpec = Callable[[str, str], dict[str, Any]]
"""(setting, benchmark) -> whatever a cell's result depends on."""
Samples = Mapping[str, list[dict[str, Any]]]
"""What lm-eval says of each document, by task."""

NOT_GENERATED = {
    **{"text": None, "tokens": 0, "forwards": 0},
    **{"finish": None, "overrun": 0, "truncated": None},
}
BOOTSTRAP_ITERATIONS = 1000  # only metrics without a closed form use it; none of the paper's


def evaluate(
    spec: EvaluationSpec,
    *,
    checkpoint: Path,
    hub: Path,
    output: Path,
    cell_spec: CellSpec,
    endpoint: Endpoint | None = None,
    work: Path | None = None,
    compiled: bool = False,
) -> None:
    """Write a record and the samples of every (setting, benchmark) that is not there yet.

    Args:
        hub: data sets in hub layout, ``<hub>/<owner>/<name>``; no network is used.
        cell_spec: stored in each record and compared on the next run.
        endpoint: the server that answers one-token mode, if ``spec.endpoint`` names its model.
        work: folder for what it has answered of unfinished cells; None: they start anew.
        compiled: compile the transformer on a GPU.

    Raises:
        UserError: a task or data set is missing, code execution has not been allowed, or the server
            does not serve the model; raised before the model is loaded.
    """
    missing_cells = _missing_cells(spec.cells, output, cell_spec)
    if not missing_cells:
        return
    protocol = spec.evaluation
    prepare_process(protocol.code_timeout)
    read_documents.cache_clear()  # what an earlier call in this process read may have changed
    loaded = {
        name: load_benchmark(spec.benchmarks[name], hub, generated=spec.generated_data)
        for name in missing_cells
    }
    server = Server(endpoint, spec.endpoint, work) if endpoint and spec.endpoint else None
    startup: dict[str, float] = {}
    load = DecodingLM.load if server is None else partial(EndpointLM.load, server=server)
    lm = load(
        checkpoint,
        protocol,
        block_size=spec.block_size,
        method=spec.method,
        options={"right_shift": spec.right_shift} if spec.method == "block_diffusion" else {},
        compiled=compiled,
        on_start=lambda: startup.update(seconds=time.time() - psutil.Process().create_time()),
    )
    for name, missing in missing_cells.items():
        benchmark = spec.benchmarks[name]
        for setting, depends_on in missing.items():
            record, samples = evaluate_cell(lm, loaded[name], benchmark, spec.settings[setting])
            record = {
                "benchmark": name,
                "setting": setting,
                **record,
                **protocol.model_dump(include={"precision", "code_timeout"}),
                **(lm.facts() if isinstance(lm, EndpointLM) else {}),
                "startup_seconds": startup.get("seconds"),
                "cell_spec": depends_on,
            }
            _write_cell(output / setting, name, record, samples)
            print(_line(record, benchmark), flush=True)


def evaluate_cell(
    lm: DecodingLM, loaded: LoadedBenchmark, benchmark: Benchmark, setting: Setting
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one benchmark under one setting; the record (without its spec) and the samples."""
    lm.setting, lm.notes = setting, {}
    CODE_EVAL.allowed = benchmark.unsafe_code
    random.seed(0)  # IFEval's checkers draw what a document leaves open
    started = time.monotonic()
    results = lm_evaluate(
        lm,
        {"tasks": loaded.tasks, "groups": loaded.groups},
        limit=benchmark.limit,
        bootstrap_iters=BOOTSTRAP_ITERATIONS,
        apply_chat_template=True,
        fewshot_as_multiturn=benchmark.fewshot_as_multiturn,
        confirm_run_unsafe_code=benchmark.unsafe_code,
    )
    seconds = time.monotonic() - started
    per_task = {
        task: {
            "documents": results["n-samples"][task]["effective"],
            "metrics": _metrics(results["results"][task], results["samples"][task]),
        }
        for task in loaded.tasks
    }
    samples = _samples(lm, results["samples"], gated="gpqa" in loaded.name)
    whole = per_task.get(loaded.name) or {
        "metrics": _group_metrics(results["groups"][loaded.name], results["samples"])
    }
    notes = {**loaded.notes, **lm.notes}
    if benchmark.unsafe_code:
        notes["network of programs"] = str(CODE_EVAL.network)
    tokens, forwards = ([sample[key] for sample in samples] for key in ("tokens", "forwards"))
    finishes = [sample["finish"] for sample in samples]
    counted = ratio(tokens, forwards) if sum(forwards) else None
    record = {
        "task": loaded.name,
        "task_version": loaded.version,
        "task_hash": loaded.task_hash,
        "num_fewshot": benchmark.num_fewshot,
        "fewshot_as_multiturn": benchmark.fewshot_as_multiturn,
        "dataset": loaded.dataset,
        "limit": benchmark.limit,
        "documents": sum(part["documents"] for part in per_task.values()),
        "metrics": whole["metrics"],
        "subtasks": per_task if loaded.name not in per_task else {},
        "tokens": sum(tokens),
        "forwards": sum(forwards),
        "tokens_per_forward": counted and counted._asdict(),
        "overrun": sum(sample["overrun"] for sample in samples),
        "counting": COUNTING,
        "finish": {reason: finishes.count(reason) for reason in ("eos", "stop", "length")},
        "truncated_prompts": sum(bool(sample["truncated"]) for sample in samples),
        "decoding": {
            **lm.decoding,
            "max_new_tokens": lm.max_new_tokens,
            "slots": lm.slots,
            "eos_token_ids": lm.eos_token_ids,
        },
        "notes": notes,
        "seconds": seconds,
        "device": _device(lm.device),
        "versions": versions(("lm_eval", "transformers", "torch", "datasets")),
    }
    return record, samples


def _missing_cells(
    wanted: Mapping[str, list[str]], output: Path, cell_spec: CellSpec
) -> dict[str, dict[str, dict[str, Any]]]:
    """benchmark -> setting -> spec of the cells that have no valid record."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for setting, names in wanted.items():
        for name in names:
            spec = cell_spec(setting, name)
            if not _is_done(output / setting, name, spec):
                cells.setdefault(name, {})[setting] = spec
    return cells


def _is_done(folder: Path, name: str, spec: dict[str, Any]) -> bool:
    samples = folder / f"{name}.samples.jsonl"
    try:
        known, digest = read_json(folder / f"{name}.json"), sha256_file(samples)
    except (FileNotFoundError, ValueError):
        return False
    same_spec = canonical_json(known.get("cell_spec")) == canonical_json(spec)
    return same_spec and known.get("samples_sha256") == digest


def _write_cell(
    folder: Path, name: str, record: dict[str, Any], samples: list[dict[str, Any]]
) -> None:
    """The samples, then the record with their hash: whoever sees the record has both."""
    path = folder / f"{name}.samples.jsonl"
    write_jsonl(path, samples)
    write_json(folder / f"{name}.json", {**record, "samples_sha256": sha256_file(path)})


def _metrics(result: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """metric -> filter -> value and standard error, of one task.

    lm-eval has no standard error for ratios such as IFEval's per-instruction accuracies; there
    it is the ratio estimator's, with the prompt as the unit.
    """
    metrics: dict[str, Any] = {}
    for key, value in result.items():
        if "," not in key or "_stderr," in key:
            continue
        metric, name = key.split(",")
        error: Any = result.get(f"{metric}_stderr,{name}")
        if not isinstance(error, float | int):
            rows = [s[metric] for s in samples if s["filter"] == name]
            lists = bool(rows) and all(isinstance(row, list) for row in rows)
            error = ratio([sum(r) for r in rows], [len(r) for r in rows]).stderr if lists else None
        error = None if error is None else float(error)
        metrics.setdefault(metric, {})[name] = {"value": float(value), "stderr": error}
    return metrics


def _group_metrics(result: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """The same for a group; if a sub-task is too small for an error, the error of all documents."""
    metrics = _metrics(result, [])
    for metric, filters in metrics.items():
        for name, score in filters.items():
            if score["stderr"] is None:
                rows = [s[metric] for part in samples.values() for s in part if s["filter"] == name]
                score["stderr"] = mean(rows).stderr
    return metrics


def _samples(lm: DecodingLM, samples: Samples, gated: bool) -> list[dict[str, Any]]:
    """One row per document, in order: its answer, what it cost, and its scores by filter.

    ``gated``: the questions must not be spread (GPQA), so only letters are kept of any text.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for task, entries in samples.items():
        for entry in entries:
            key = (task, entry["doc_id"])
            if key not in rows:
                rows[key] = _row(lm, task, entry, gated)
            extracted = _letter(entry["filtered_resps"][0]) if gated else entry["filtered_resps"][0]
            if gated or extracted != rows[key]["generation"]:
                rows[key]["extracted"][entry["filter"]] = extracted
            scores = {metric: entry[metric] for metric in entry["metrics"]}
            rows[key]["scores"][entry["filter"]] = scores
    return list(rows.values())


def _row(lm: DecodingLM, task: str, entry: dict[str, Any], gated: bool) -> dict[str, Any]:
    generation = lm.generations.get((task, entry["doc_id"]))
    cost = asdict(generation) if generation else NOT_GENERATED
    text = {} if gated else {"generation": cost["text"]}
    return {
        "task": task,
        "document": entry["doc_id"],
        "prompt_sha256": entry["prompt_hash"],
        "target": _letter(entry["target"]) if gated else entry["target"],
        **text,
        **{key: value for key, value in cost.items() if key != "text"},
        "extracted": {},
        "scores": {},
    }


def _letter(text: Any) -> str | None:
    """The choice if ``text`` is one, as ``(A)`` or ``A``; never other text."""
    found = re.fullmatch(r"\(?([A-Za-z])\)?", str(text).strip())
    return found[1].upper() if found else None


def _line(record: Mapping[str, Any], benchmark: Benchmark) -> str:
    score, counted = headline(record, benchmark), record["tokens_per_forward"]
    speed = f", {counted['value']:.2f} tokens per forward" if counted else ""
    return (
        f"{record['setting']} {record['benchmark']}: {100 * score.value:.1f} %"
        f" of {record['documents']}{speed}, {record['seconds']:.0f} s"
    )


def _device(device: Any) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
