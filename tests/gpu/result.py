"""The result of a trial: a file that is whole after every row, and a table for people."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu.device import commit, describe, slug, versions
from tests.gpu.part import Row

SECTIONS = ("checks", "decoding", "training")
ANCHORS = (
    "Published elsewhere, for comparison: prime-rl, 16.8 % of an H100's operations for 0.6B; "
    "torchtitan, 5,762 tokens/s per H100 for 8B, compiled 6,667."
)


class Result:
    """What was found on one device.

    Args:
        folder: for the file, which is named after the device; None to keep none.
    """

    def __init__(self, device: Any, folder: Path | None) -> None:
        self.content: dict[str, Any] = {
            "device": describe(device),
            "versions": versions(),
            "commit": commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **{section: [] for section in SECTIONS},
        }
        name = f"{slug(self.content['device']['name'])}.json"
        self.path = None if folder is None else folder / name

    def add(self, section: str, row: Row) -> None:
        """Take a row, and write the file anew."""
        self.content[section].append(row)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(self.content, indent=1) + "\n")
            os.replace(unfinished, self.path)

    def with_status(self, status: str) -> list[Row]:
        return [row for row in self.content["checks"] if row["status"] == status]

    def table(self) -> str:
        """All of it, what failed and what was not tried first."""
        device = self.content["device"]
        lines = [f"{device['name']}, torch {self.content['versions']['torch']}"]
        for status in ("failed", "skipped", "passed"):
            lines += ["", f"{len(self.with_status(status))} {status}"]
            lines += [f"  {row['name']}: {row['detail']}" for row in self.with_status(status)]
        if self.content["decoding"]:
            lines += [
                "",
                "Decoding with random weights, 128 tokens after a prompt of 128, one per forward",
            ]
            lines += [f"  {'shape':5} {'batch':>5} {'tokens/s':>10} {'bandwidth':>9}  method"]
            for row in self.content["decoding"]:
                share = percent(row["bandwidth_share"])
                lines.append(
                    f"  {row['shape']:5} {row['batch']:5} {row['tokens_per_second']:10,.0f}"
                    f" {share:>9}  {row['method']}"
                )
        if self.content["training"]:
            lines += ["", "Training steps with random weights; MFU: model FLOPs utilisation"]
            lines += [
                f"  {'shape':5} {'tokens/s':>10} {'MFU':>6} {'memory':>9} {'modelled':>9}  how"
            ]
            lines += [training_line(row) for row in self.content["training"]]
            lines += ["", ANCHORS]
        return "\n".join(lines)


def training_line(row: Row) -> str:
    """One training as a line of the table."""
    how = [row["method"], f"rows of {row['row_length']}"]
    how += ["checkpointed"] * row["activation_checkpointing"] + ["compiled"] * row["compile"]
    if len(row["layers_timed"]) > 1:
        how.append("computed from the times of {} layers".format(
            " and ".join(map(str, row["layers_timed"]))
        ))  # fmt: skip
    return (
        f"  {row['shape']:5} {row['tokens_per_second']:10,.0f}"
        f" {percent(row['model_flops_utilisation']):>6} {gigabytes(row['peak_memory_bytes']):>9}"
        f" {gigabytes(row['modelled_memory_bytes']):>9}  {', '.join(how)}"
    )


def percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def gigabytes(size: float | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.2f} GB"
