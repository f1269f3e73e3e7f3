"""The measured cells as tables: CSV for programs, Markdown for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mars.decoding.methods import TIMED
from mars.errors import UserError
from mars.provenance.files import read_json, write_atomic
from mars.speed.timing import read_measurements


def write_summary(folder: Path) -> None:
    """Write ``summary.csv`` and ``summary.md`` from the records in ``folder``."""
    records = read_records(folder)
    write_atomic(folder / "summary.csv", table(records).to_csv(index=False))
    write_atomic(folder / "summary.md", markdown(folder))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a measurement, by batch size, methods in the order of Table 5.

    Raises:
        UserError: none there.
    """
    records = read_measurements(folder)
    if not records:
        raise UserError(f"{folder}: no measurements here; run `mars speed` with this output.")
    return sorted(records.values(), key=_place)


def _place(record: dict[str, Any]) -> tuple:
    cell = record["spec"]["cell"]
    tau = -1.0 if cell["tau"] is None else cell["tau"]
    return cell["batch"], [*TIMED].index(cell["method"]), -tau, cell["cache_block"] or 0


def table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per cell; medians, and the quartiles of the throughput."""
    return pd.DataFrame([_row(record) for record in records])


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = dict(record["spec"]["cell"])
    if "skipped" in record:
        return {**row, "skipped": record["skipped"]}
    rate, equal = record["tokens_per_second"], record["equal_to_greedy"]

    def against(name: str, kind: str) -> float | None:
        ratios = record[kind].get(name)
        return ratios and ratios["median"]

    return {
        **row,
        "tokens_per_second": rate["median"],
        "quarter": rate["quartiles"][0],
        "three_quarters": rate["quartiles"][1],
        "decode_tokens_per_second": record["decode_tokens_per_second"]["median"],
        "prefill_seconds": record["prefill_seconds"]["median"],
        "decode_seconds": record["decode_seconds"]["median"],
        "tokens_per_forward": record["tokens_per_forward"],
        "speedup_over_hf": against("hf", "speedup_over"),
        "speedup_over_autoregressive": against("autoregressive", "speedup_over"),
        "efficiency_over_hf": against("hf", "efficiency_over"),
        "efficiency_over_autoregressive": against("autoregressive", "efficiency_over"),
        "accuracy": (record.get("accuracy") or {}).get("value"),
        "equal_to_greedy": equal["sequences"],
        "sequences": record["sequences"],
        "must_be_equal": equal["required"],
    }


def markdown(folder: Path) -> str:
    """The measurement as a section of a page: circumstances, cells, and the caches compared."""
    records = read_records(folder)
    parts = ["## Measurements", *_circumstances(records), _cells(records), _caches(records)]
    profile = folder / "profile.json"
    if profile.is_file():
        parts.append(_profile(read_json(profile)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _circumstances(records: list[dict[str, Any]]) -> list[str]:
    measured = [record for record in records if "skipped" not in record]
    if not measured:
        return []
    commands = dict.fromkeys(record["command"] for record in measured)
    first = measured[0]
    hardware, versions = first["hardware"], first["versions"]
    loads = [load for record in measured for load in record["load_average"]]
    device = f"{hardware['processor']}, {first['threads']} threads"
    if hardware["gpus"]:
        device = f"{', '.join(hardware['gpus'])}, driver {first['gpu_driver']}"
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))
    return [
        *(f"```\n{command}\n```" for command in commands),
        f"**{first['label']}** on {device}; {packages}, Python {versions['python']}; "
        f"load average {min(loads):.1f} to {max(loads):.1f}. {first['sequences']} prompts, at "
        f"most {first['spec']['max_new_tokens']} new tokens; medians of "
        f"{first['spec']['repeats']} rounds, in brackets the quartiles.",
    ]


def _cells(records: list[dict[str, Any]]) -> str:
    heads = [
        *("batch", "method", "tau", "B_cache", "tokens/s", "decoding only", "prefill s"),
        *("decode s", "tokens/forward", "× HF", "× AR engine", "÷ tokens/forward (HF, AR)"),
        *("accuracy", "= greedy AR"),
    ]
    return _markdown_table(heads, (_line(row) for row in map(_row, records)))


def _line(row: dict[str, Any]) -> list[str]:
    start = [row["batch"], row["method"], _number(row["tau"]), _number(row["cache_block"])]
    if "skipped" in row:
        return [*map(str, start), f"skipped: {row['skipped']}", *[""] * 9]
    equal = f"{row['equal_to_greedy']} of {row['sequences']}"
    if row["must_be_equal"] and row["equal_to_greedy"] < row["sequences"]:
        equal += " (should be all)"
    efficiency = [row["efficiency_over_hf"], row["efficiency_over_autoregressive"]]
    return [
        *map(str, start),
        f"{row['tokens_per_second']:.0f} [{row['quarter']:.0f}, {row['three_quarters']:.0f}]",
        f"{row['decode_tokens_per_second']:.0f}",
        f"{row['prefill_seconds']:.2f}",
        f"{row['decode_seconds']:.2f}",
        f"{row['tokens_per_forward']:.2f}",
        _number(row["speedup_over_hf"], ".2f"),
        _number(row["speedup_over_autoregressive"], ".2f"),
        ", ".join(_number(value, ".2f") for value in efficiency),
        _number(row["accuracy"], ".1%"),
        equal,
    ]


def _caches(records: list[dict[str, Any]]) -> str:
    """The engine over the paper's block cache at the best granularity, per batch size."""
    lines = []
    for record in records:
        cell = record["spec"]["cell"]
        if cell["method"] != "cursor" or "skipped" in record:
            continue
        for method in ("block_cache", "block_cache-authors"):
            ratios = {
                name.rpartition("=")[2]: ratio
                for name, ratio in record["speedup_over"].items()
                if name.startswith(f"{method} tau={cell['tau']} ")
            }
            if ratios:
                block, ratio = min(ratios.items(), key=lambda item: item[1]["median"])
                low, high = ratio["quartiles"]
                over = f"{ratio['median']:.2f} [{low:.2f}, {high:.2f}]"
                lines.append([str(cell["batch"]), _number(cell["tau"]), method, block, over])
    if not lines:
        return ""
    heads = ["batch", "tau", "block cache", "its best B_cache", "cursor is faster by"]
    return _markdown_table(heads, lines)


def _profile(profile: dict[str, Any]) -> str:
    parts = profile["parts"]
    lines = [
        [
            str(row["batch"]),
            f"{row['milliseconds']:.2f}",
            *(f"{row['shares'][p]:.0%}" for p in parts),
        ]
        for row in profile["batches"]
    ]
    table = _markdown_table(["batch", "ms per step", *parts], lines)
    return f"Where a decoding step of the engine spends its time:\n\n{table}"


def _markdown_table(heads: list[str], lines: Iterable[list[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None, form: str = "") -> str:
    return "" if value is None else f"{value:{form}}"
