"""Typed access to the published numbers (`published/*.csv`, from arXiv 2604.07023)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent / "published"
BENCHMARKS = ("IFEval", "BBH", "MMLU-Pro", "GPQA", "GSM8K", "HumanEval")
AVERAGE = "Avg"
# Table 7: the stage of the paper is five epochs long; "10 epochs" doubles it.
STAGE_EPOCHS = 5


@dataclass(frozen=True)
class Row:
    """One published row: a model, how it decodes, and its scores.

    Attributes:
        label: the row's name in the paper's table.
        epochs: of the model's own training stage; 0 for a base model.
        tau: acceptance threshold; None is one-token mode.
        scores: by quantity ("accuracy" in percent, "delta_from_tau_1" in points,
            "tokens_per_forward"), then by benchmark title and "Avg".
    """

    scale: str
    label: str
    method: str
    block_size: int | None
    sft_loss: bool | None
    epochs: int
    tau: float | None
    scores: dict[str, dict[str, float]]


@cache
def table(number: int) -> pd.DataFrame:
    """Table ``number`` of the paper as printed.

    Raises:
        KeyError: the paper has no such table of numbers.
    """
    files = list(FOLDER.glob(f"table{number}_*.csv"))
    if not files:
        raise KeyError(f"the paper has no table {number} of numbers")
    return pd.read_csv(files[0])


@cache
def table2() -> list[Row]:
    """Table 2: one-token mode, one row per model."""
    return [
        Row(
            scale=line["scale"],
            label=line["model"],
            method=line["method"],
            block_size=_optional_int(line["block_size"]),
            sft_loss=None if pd.isna(line["sft_loss"]) else bool(line["sft_loss"]),
            epochs=int(line["epochs"]),
            tau=None,
            scores={"accuracy": _scores(line)},
        )
        for line in table(2).to_dict("records")
    ]


@cache
def table4() -> list[Row]:
    """Table 4: multi-token mode, one row per model with its three quantities."""
    rows = []
    for (scale, block_size, tau), lines in table(4).groupby(
        ["scale", "block_size", "tau"], sort=False
    ):
        rows.append(
            Row(
                scale=scale,
                label=f"MARS-{scale} (B={block_size})",
                method="mars",
                block_size=int(block_size),
                sft_loss=True,
                epochs=STAGE_EPOCHS,
                tau=float(tau),
                scores={line["quantity"]: _scores(line) for line in lines.to_dict("records")},
            )
        )
    return rows


def base_model(scale: str) -> str:
    """Name of the base model that the paper starts from (Table 7)."""
    names = table(7).set_index("hyperparameter")
    return str(names.loc["base_model", scale])


def _scores(line: dict) -> dict[str, float]:
    return {name: float(line[name]) for name in (*BENCHMARKS, AVERAGE)}


def _optional_int(value: float) -> int | None:
    return None if pd.isna(value) else int(value)
