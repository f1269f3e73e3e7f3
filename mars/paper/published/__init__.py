"""Typed access to the published numbers (`published/*.csv`, from arXiv 2604.07023)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BENCHMARKS = ("IFEval", "BBH", "MMLU-Pro", "GPQA", "GSM8K", "HumanEval")
AVERAGE = "Avg"
# Questions of the real benchmarks, over which the published accuracies are means.
QUESTIONS = {
    "IFEval": 541,
    "BBH": 6511,
    "MMLU-Pro": 12032,
    "GPQA": 448,
    "GSM8K": 1319,
    "HumanEval": 164,
}
# Table 7: the stage of the paper is five epochs long; "10 epochs" doubles it.
STAGE_EPOCHS = 5
PEAK_MEMORY_OVER_AR = 1.5  # of MARS training, in the paper's text
SCALES = ("0.5B", "7B")

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One row of a table: a model, how it decodes, and its published scores.

    Attributes:
        label: the row's name in the paper's table.
        epochs: of the model's own training stage; 0 for a base model.
        decoding: what differs from one-token mode, by key of a setting; a value may be a predicate.
        scores: by quantity ("accuracy" in percent, "delta_from_tau_1" in points,
            "tokens_per_forward"), then by benchmark title; what the paper does not print is
            absent.
        benchmarks: titles of the cells of each quantity.
        inverse_t: whether training weights sequences by 1/t.
        beyond: whether the row is ours alone.
        extra: further fields of the row's cells.
    """

    scale: str
    label: str
    method: str
    block_size: int | None
    sft_loss: bool | None
    epochs: int
    scores: Scores
    decoding: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = (*BENCHMARKS, AVERAGE)
    inverse_t: bool = False
    beyond: bool = False
    extra: Mapping[str, str | int | float] = field(default_factory=dict)


Line = Mapping[str, str]
"""A line of a published table, by column, as printed; no number is an empty text."""


@cache
def table(number: int) -> list[Line]:
    """Table ``number`` of the paper as printed.

    Raises:
        KeyError: the paper has no such table of numbers.
    """
    files = list(FOLDER.glob(f"table{number}_*.csv"))
    if not files:
        raise KeyError(f"the paper has no table {number} of numbers")
    with open(files[0], newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def table2() -> list[Row]:
    """Table 2: one-token mode, one row per model."""
    return [
        Row(
            scale=line["scale"],
            label=line["model"],
            method=line["method"],
            block_size=optional_int(line["block_size"]),
            sft_loss=_optional_bool(line["sft_loss"]),
            epochs=int(line["epochs"]),
            scores={"accuracy": _scores(line)},
        )
        for line in table(2)
    ]


@cache
def table3() -> list[Row]:
    """Table 3: one-token mode, with and without SFT loss, for each block size."""
    return [_mars_or_ar(line, {"accuracy": _scores(line)}) for line in table(3)]


@cache
def table4() -> list[Row]:
    """Table 4: multi-token mode, one row per model with its three quantities."""
    return [
        Row(
            scale=scale,
            label=mars_label(scale, int(block_size)),
            method="mars",
            block_size=int(block_size),
            sft_loss=True,
            epochs=STAGE_EPOCHS,
            scores={line["quantity"]: _scores(line) for line in lines},
            decoding=_at(float(tau)),
        )
        for (scale, block_size, tau), lines in _groups(4, "scale", "block_size", "tau")
    ]


@cache
def table8() -> list[Row]:
    """Table 8: accuracy and tokens per forward over tau and block size, on two benchmarks."""
    return [
        Row(
            scale=scale,
            label=f"{mars_label(scale, int(size), sft == 'true')}, tau = {float(tau):g}",
            method="mars",
            block_size=int(size),
            sft_loss=sft == "true",
            epochs=STAGE_EPOCHS,
            scores={
                quantity: {line["benchmark"]: float(line[quantity]) for line in lines}
                for quantity in ("accuracy", "tokens_per_forward")
            },
            decoding=_at(float(tau)),
            benchmarks=tuple(line["benchmark"] for line in lines),
            extra={
                "sft_loss": "with" if sft == "true" else "without",
                "tau": f"{float(tau):g}",
                "block_size": int(size),
            },
        )
        for (scale, sft, tau, size), lines in _groups(8, "scale", "sft_loss", "tau", "block_size")
    ]


@cache
def table9() -> list[Row]:
    """Table 9: Jacobi decoding of the AR model beside MARS, at the small scale.

    The paper gives tokens per forward over all benchmarks together.
    """
    ar, jacobi, mars = (
        (line["method"], {"accuracy": _scores(line), "tokens_per_forward": _speed(line)})
        for line in table(9)
    )
    ar_sft: dict[str, Any] = {"method": "ar_sft", "block_size": None, "sft_loss": None}
    small: dict[str, Any] = {"scale": "0.5B", "epochs": STAGE_EPOCHS}
    return [
        Row(label=ar[0], scores=ar[1], **small, **ar_sft),
        Row(
            label=jacobi[0],
            scores=jacobi[1],
            **small,
            **ar_sft,
            decoding={"method": "jacobi", "block_size": lambda guesses: True},
        ),
        Row(
            label=mars[0],
            scores=mars[1],
            **small,
            method="mars",
            block_size=4,
            sft_loss=True,
            decoding=_at(0.95),
        ),
    ]


ROWS: Mapping[int, Callable[[], list[Row]]] = {
    2: table2,
    3: table3,
    4: table4,
    8: table8,
    9: table9,
}
"""The rows of each table of evaluations, by its number."""


def pair_label(line: Line) -> str:
    """What a row of Table 6 is called: its draft and its target."""
    return f"{line['draft']} -> {line['target']}"


def hyperparameters(scale: str) -> dict[str, str]:
    """Table 7 as printed, for one scale: each hyper-parameter by the paper's name of it."""
    return {line["hyperparameter"]: line[scale] for line in table(7)}


def training_hours() -> dict[str, dict[str, float]]:
    """H200-hours of one training (Table 7), by scale and then ``ar_sft`` and ``mars``."""
    return {
        scale: {
            stage: float(hyperparameters(scale)[f"{stage}_h200_hours"])
            for stage in ("ar_sft", "mars")
        }
        for scale in SCALES
    }


def base_model(scale: str) -> str:
    """Name of the base model that the paper starts from (Table 7)."""
    return hyperparameters(scale)["base_model"]


def mars_label(scale: str, block_size: int, sft_loss: bool = True) -> str:
    """A MARS model as Table 2 calls it, e.g. ``MARS-0.5B w/o SFT loss (B=4)``."""
    return f"MARS-{scale}{'' if sft_loss else ' w/o SFT loss'} (B={block_size})"


def _mars_or_ar(line: Line, scores: Scores) -> Row:
    """A row of Table 3, which has no labels of its own."""
    block_size, sft_loss = optional_int(line["block_size"]), _optional_bool(line["sft_loss"])
    label = "AR SFT"
    if block_size is not None:
        label = mars_label(line["scale"], block_size, bool(sft_loss))
    return Row(
        scale=line["scale"],
        label=label,
        method=line["method"],
        block_size=block_size,
        sft_loss=sft_loss,
        epochs=STAGE_EPOCHS,
        scores=scores,
    )


def _groups(number: int, *columns: str) -> list[tuple[tuple[str, ...], list[Line]]]:
    """The lines of a table that are alike in some columns, with what they have there."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in table(number):
        groups.setdefault(tuple(line[column] for column in columns), []).append(line)
    return list(groups.items())


def _at(tau: float) -> dict[str, float]:
    """Decoding at a threshold; the paper's tau = 1.0 uses none at all."""
    return {} if tau == 1 else {"threshold": tau}


def _scores(line: Line) -> dict[str, float]:
    return {name: float(line[name]) for name in (*BENCHMARKS, AVERAGE)}


def _speed(line: Line) -> dict[str, float]:
    return {AVERAGE: float(line["tokens_per_forward"])}


def optional_int(text: str) -> int | None:
    """A whole number as printed; None where there is none."""
    return int(text) if text else None


def _optional_bool(text: str) -> bool | None:
    return text == "true" if text else None
