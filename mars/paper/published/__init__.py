"""Typed access to the published numbers (`published/*.csv`, from arXiv 2604.07023)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BENCHMARKS = ("IFEval", "BBH", "MMLU-Pro", "GPQA", "GSM8K", "HumanEval")
# Questions of the real benchmarks, over which the published accuracies are means.
QUESTIONS = dict(zip(BENCHMARKS, (541, 6511, 12032, 448, 1319, 164), strict=True))
AVERAGE = "Avg"
# Table 7: the stage of the paper is five epochs long; "10 epochs" doubles it.
STAGE_EPOCHS = 5
MAX_NEW_TOKENS = 256
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
        right_shift: whether position j predicts token j + 1; only of block diffusion can it be
            otherwise.
        beyond: whether the row is ours alone.
        extra: further fields of the row's cells.
    """

    scale: str
    label: str
    method: str
    scores: Scores
    block_size: int | None = None
    sft_loss: bool | None = None
    epochs: int = STAGE_EPOCHS
    decoding: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = (*BENCHMARKS, AVERAGE)
    inverse_t: bool = False
    right_shift: bool = True
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
        _row(line, {"accuracy": _scores(line)}, label=line["model"], epochs=int(line["epochs"]))
        for line in table(2)
    ]


@cache
def table3() -> list[Row]:
    """Table 3: one-token mode, with and without SFT loss, for each block size."""
    return [_row(line, {"accuracy": _scores(line)}) for line in table(3)]


@cache
def table4() -> list[Row]:
    """Table 4: multi-token mode, one row per model with its three quantities."""
    return [
        _row(lines[0], {line["quantity"]: _scores(line) for line in lines})
        for lines in _groups(4, "scale", "block_size", "tau")
    ]


@cache
def table8() -> list[Row]:
    """Table 8: accuracy and tokens per forward over tau and block size, on two benchmarks."""
    rows = []
    for lines in _groups(8, "scale", "sft_loss", "tau", "block_size"):
        scores = {
            quantity: {line["benchmark"]: float(line[quantity]) for line in lines}
            for quantity in ("accuracy", "tokens_per_forward")
        }
        row, tau = _row(lines[0], scores), f"{float(lines[0]['tau']):g}"
        sft_loss = "with" if row.sft_loss else "without"
        extra: dict[str, str | int | float] = {"sft_loss": sft_loss, "tau": tau}
        extra["block_size"] = int(lines[0]["block_size"])
        label, titles = f"{row.label}, tau = {tau}", tuple(line["benchmark"] for line in lines)
        rows.append(replace(row, label=label, benchmarks=titles, extra=extra))
    return rows


@cache
def table9() -> list[Row]:
    """Table 9: Jacobi decoding of the AR model beside MARS, at the small scale.

    The paper gives tokens per forward over all benchmarks together.
    """
    jacobi = {"method": "jacobi", "block_size": lambda size: not guesses_all(size)}
    kinds: tuple[dict[str, Any], ...] = (
        {"method": "ar_sft"},
        {"method": "ar_sft", "decoding": jacobi},
        {"method": "mars", "block_size": 4, "sft_loss": True, "decoding": {"threshold": 0.95}},
    )
    return [
        Row(
            scale="0.5B",
            label=line["method"],
            scores={
                "accuracy": _scores(line),
                "tokens_per_forward": {AVERAGE: float(line["tokens_per_forward"])},
            },
            **kind,
        )
        for line, kind in zip(table(9), kinds, strict=True)
    ]


ROWS: dict[int, Callable[[], list[Row]]] = {2: table2, 3: table3, 4: table4, 8: table8, 9: table9}
"""The rows of each table of evaluations, by its number."""


def change_of_accuracy(terms: Iterable[tuple[Row, int]], titles: Sequence[str]) -> float | None:
    """Signed sum of the published accuracies of some rows, averaged over benchmarks, in points.

    None where the paper has not all of them, as of a benchmark that is not the paper's.
    """
    signed = [(row.scores.get("accuracy", {}), sign) for row, sign in terms]
    if not titles or not all(title in scores for scores, _ in signed for title in titles):
        return None
    sums = (sum(sign * scores[title] for scores, sign in signed) for title in titles)
    return sum(sums) / len(titles)


def guesses_all(block_size: int | None) -> bool:
    """Whether Jacobi decoding guesses as many tokens as an answer of the paper may have (C5)."""
    return block_size is not None and block_size > MAX_NEW_TOKENS


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


def _row(line: Line, scores: Scores, **more: Any) -> Row:
    """A row by the columns that a table has; one without labels is called as in Table 2."""
    size, sft_loss = optional_int(line["block_size"]), line.get("sft_loss", "true")
    loss = "" if sft_loss == "true" else " w/o SFT loss"
    tau = float(line.get("tau") or 1)
    row = Row(
        scale=line["scale"],
        label=f"MARS-{line['scale']}{loss} (B={size})" if size else "AR SFT",
        method=line.get("method", "mars"),
        scores=scores,
        block_size=size,
        sft_loss=sft_loss == "true" if sft_loss else None,
        decoding={} if tau == 1 else {"threshold": tau},  # the paper's tau = 1.0 uses none at all
    )
    return replace(row, **more)


def _groups(number: int, *columns: str) -> list[list[Line]]:
    """The lines of a table that are alike in some columns."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in table(number):
        groups.setdefault(tuple(line[column] for column in columns), []).append(line)
    return list(groups.values())


def _scores(line: Line) -> dict[str, float]:
    return {name: float(line[name]) for name in (*BENCHMARKS, AVERAGE)}


def optional_int(text: str | None) -> int | None:
    """A whole number as printed; None where there is none."""
    return int(text) if text else None
