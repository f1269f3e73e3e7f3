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
    """One row per cell; means over rounds, and the 95 % interval of the throughput."""
    return pd.DataFrame([_row(record) for record in records])


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = dict(record["spec"]["cell"])
    if "skipped" in record:
        return {**row, "skipped": record["skipped"]}
    rate, equal = record["tokens_per_second"], record["equal_to_greedy"]
    lower, upper = rate["interval"] or (None, None)
    parts = ("decode_tokens_per_second", "prefill_seconds", "decode_seconds")
    return {
        **row,
        "rounds": len(rate["values"]),
        "tokens_per_second": rate["mean"],
        "lower": lower,
        "upper": upper,
        **{key: record[key]["mean"] for key in parts},
        "tokens_per_forward": record["tokens_per_forward"],
        **{
            f"{kind}_{name}": record[kind].get(name, {}).get("mean")
            for kind in ("speedup_over", "efficiency_over")
            for name in ("hf", "autoregressive")
        },
        "accuracy": (record.get("accuracy") or {}).get("value"),
        "equal_to_greedy": equal["sequences"],
        "sequences": record["sequences"],
        "must_be_equal": equal["required"],
    }


def markdown(folder: Path) -> str:
    """The measurement as a section of a page: circumstances, cells, and the caches compared."""
    records = read_records(folder)
    cells = _markdown_table(list(COLUMNS), map(_line, map(_row, records)))
    parts = ["## Measurements", *_circumstances(records), cells, _caches(records)]
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
        f"most {first['spec']['max_new_tokens']} new tokens; means over at most "
        f"{first['spec']['repeats']} rounds, in brackets their 95 % intervals.",
    ]


class _Blank:
    """Stands for a missing number."""

    def __format__(self, form: str) -> str:
        return ""


COLUMNS = {
    "batch": "{batch}",
    "method": "{method}",
    "tau": "{tau}",
    "B_cache": "{cache_block}",
    "rounds": "{rounds}",
    "tokens/s": "{tokens_per_second:.0f}{interval}",
    "decoding only": "{decode_tokens_per_second:.0f}",
    "prefill s": "{prefill_seconds:.2f}",
    "decode s": "{decode_seconds:.2f}",
    "tokens/forward": "{tokens_per_forward:.2f}",
    "× HF": "{speedup_over_hf:.2f}",
    "× AR engine": "{speedup_over_autoregressive:.2f}",
    "÷ tokens/forward (HF, AR)": "{efficiency_over_hf:.2f}, {efficiency_over_autoregressive:.2f}",
    "accuracy": "{accuracy:.1%}",
    "= greedy AR": "{equal_to_greedy} of {sequences}{remark}",
}


def _line(row: dict[str, Any]) -> list[str]:
    values = {key: _Blank() if value is None else value for key, value in row.items()}
    forms = list(COLUMNS.values())
    if "skipped" in row:
        forms = [*forms[:4], "", "skipped: {skipped}", *[""] * 9]
    elif row["lower"] is not None:
        values["interval"] = f" [{row['lower']:.0f}, {row['upper']:.0f}]"
    if row.get("must_be_equal") and row["equal_to_greedy"] < row["sequences"]:
        values["remark"] = " (should be all)"
    return [form.format(**{"remark": "", "interval": "", **values}) for form in forms]


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
                block, ratio = min(ratios.items(), key=lambda item: item[1]["mean"])
                over = f"{ratio['mean']:.2f}"
                if ratio["interval"] is not None:
                    over += " [{:.2f}, {:.2f}]".format(*ratio["interval"])
                tau = "" if cell["tau"] is None else str(cell["tau"])
                lines.append([str(cell["batch"]), tau, method, block, over])
    if not lines:
        return ""
    heads = ["batch", "tau", "block cache", "its best B_cache", "cursor is faster by"]
    return _markdown_table(heads, lines)


def _profile(profile: dict[str, Any]) -> str:
    parts = profile["parts"]
    lines = []
    for row in profile["batches"]:
        shares = (f"{row['shares'][part]:.0%}" for part in parts)
        lines.append([str(row["batch"]), f"{row['milliseconds']:.2f}", *shares])
    table = _markdown_table(["batch", "ms per step", *parts], lines)
    return f"Where a decoding step of the engine spends its time:\n\n{table}"


def _markdown_table(heads: list[str], lines: Iterable[list[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
