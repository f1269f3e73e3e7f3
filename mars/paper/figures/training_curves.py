"""Loss curves of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mars.errors import UserError
from mars.paper.figures.style import COLOURS, PAGE, figure_for
from mars.provenance.files import read_jsonl

WIDTH, KEY = 120, 6  # of the legend and of what stands before a label, in characters
_STREAMS = {"loss_ar": "next-token loss (clean stream)", "loss_mask": "mask loss (noisy stream)"}


def plot_curves(logs: Mapping[str, Sequence[Path]], outputs: Sequence[Path]) -> None:
    """Draw the loss of both streams over the optimiser steps, smoothed over the single steps.

    Args:
        logs: ``training.jsonl`` of every seed, per name, in the order of the legend.
        outputs: files to write; the ending (``.pdf``, ``.png``) of each chooses its format.

    Raises:
        UserError: a log that is empty or not there.
    """
    runs = {name: list(map(_read, paths)) for name, paths in logs.items()}
    with figure_for(outputs, PAGE, 3) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for panel, (key, title) in zip(panels, _STREAMS.items(), strict=True):
            _draw(panel, runs, key)
            panel.set_title(title)
            panel.set_xlabel("optimiser step")
        panels[0].set_yscale("log")  # the first steps would flatten all that comes after
        low, high = _range([line for panel in panels for line in panel.get_lines()])
        panels[0].set_ylim(low, high)
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        panels[0].yaxis.set_major_formatter(FuncFormatter("{0:g}".format))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("nats per token")
        handles = {
            label: handle
            for panel in panels
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        columns = _columns(list(handles))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def _draw(panel: Axes, runs: Mapping[str, list[list[dict]]], key: str) -> None:
    """One stream of all runs; colour and line style together tell any number of models apart."""
    for number, (name, seeds) in enumerate(runs.items()):
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": ("-", "--", ":")[number // len(COLOURS) % 3],
        }
        for rows in seeds:
            points = [(row["step"], row[key]) for row in rows if row[key] is not None]
            if points:
                steps, losses = np.array(points, dtype=float).T
                panel.plot(steps, losses, color=look["color"], alpha=0.12, linewidth=0.4)
                panel.plot(steps, _smooth(losses), label=name, **look)


def _range(lines: Sequence[Line2D]) -> tuple[float, float]:
    """A little more than the smoothed curves need: single steps may leave it."""
    losses = np.concatenate([line.get_ydata() for line in lines if line.get_alpha() is None])
    return float(losses.min()) / 1.5, float(losses.max()) * 1.5


def _columns(labels: list[str]) -> int:
    """As many columns of the legend, at most five, as the page is wide enough for."""
    for count in range(5, 1, -1):
        columns = np.array_split(labels, count)
        if sum(max(map(len, column), default=0) + KEY for column in columns) <= WIDTH:
            return count
    return 1


def _smooth(losses: np.ndarray) -> np.ndarray:
    """Mean over the nearest twentieth of the run, shorter at its ends."""
    half = max(1, len(losses) // 40)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    index = np.arange(len(losses))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(losses))
    return (sums[high] - sums[low]) / (high - low)


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        raise UserError(f"{path}: there is no training log; train the model first.")
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: the training log is empty; train the model again.")
    return rows
