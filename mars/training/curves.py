"""Loss curves of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from mars.errors import UserError
from mars.files import read_jsonl

_STREAMS = {"loss_ar": "next-token loss (clean stream)", "loss_mask": "mask loss (noisy stream)"}


def plot_curves(logs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """Draw the loss of both streams over the optimiser steps, smoothed over the single steps.

    Args:
        logs: ``training.jsonl`` per name, in the order of the legend.
        outputs: files to write; the ending (``.pdf``, ``.png``) of each chooses its format.

    Raises:
        UserError: a log that is empty or not there.
    """
    runs = {name: _read(Path(path)) for name, path in logs.items()}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (key, title) in zip(panels, _STREAMS.items(), strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            points = [(row["step"], row[key]) for row in rows if row[key] is not None]
            if not points:
                continue
            steps, losses = np.array(points, dtype=float).T
            colour = f"C{number % 10}"
            panel.plot(steps, losses, color=colour, alpha=0.12, linewidth=0.6)
            panel.plot(steps, _smooth(losses), color=colour, linewidth=1.6, label=name)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("optimiser step")
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")  # the first steps would flatten all that comes after
    panels[0].yaxis.set_major_formatter(ScalarFormatter())
    panels[0].set_ylabel("nats per token")
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    for output in map(Path, outputs):
        output.parent.mkdir(parents=True, exist_ok=True)
        # Without its date, so that the same curves are the same bytes.
        metadata = {"CreationDate": None} if output.suffix == ".pdf" else None
        figure.savefig(output, dpi=200, metadata=metadata)


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
