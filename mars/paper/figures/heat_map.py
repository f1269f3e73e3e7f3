"""Heat map of the block cache: speed-up over AR by cache block and batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from mars.decoding.methods import TIMED
from mars.errors import UserError
from mars.paper.figures.style import figure_for
from mars.provenance.files import write_atomic

METHODS = [name for name in TIMED if name != "autoregressive"]  # which is against itself
LETTER = 0.058  # inches, of the labels
MARGIN = 1.05  # the scale of colours reaches at least so far from 1, and as far down


def draw(summary: Path, output: Path) -> list[Path]:
    """Write ``heat_map.pdf``, ``.png`` and the cells drawn, ``.csv``, into the folder ``output``.

    Args:
        summary: CSV of a speed sweep, one cell per line: ``method``, ``batch``, ``cache_block``
            (empty for methods without) and ``speedup_over_autoregressive``.

    Raises:
        UserError: the sweep has no speed-up.
    """
    grid = speedups(pd.read_csv(summary))
    if grid.empty:
        raise UserError(f"{summary} has no speed-up over AR; measure it again with its baseline.")
    files = [output / f"heat_map.{suffix}" for suffix in ("pdf", "png", "csv")]
    width = 1 + LETTER * max(map(len, grid.index)) + 0.55 * len(grid.columns)
    with figure_for(files[:2], width, 0.9 + 0.2 * len(grid)) as figure:
        panel = figure.subplots()
        image = _cells(panel, grid)
        figure.colorbar(image, ax=panel, label="tokens/s over AR's", shrink=0.9)
    write_atomic(files[2], grid.to_csv(index_label="line"))
    return files


def speedups(cells: pd.DataFrame) -> pd.DataFrame:
    """Speed-up over AR: a line per method and cache block, a column per batch size."""
    chosen = cells.dropna(subset=["speedup_over_autoregressive"])
    chosen = chosen[chosen["method"].isin(METHODS)]
    ranks = chosen["method"].map(METHODS.index)
    lines = [_line(*cell) for cell in zip(chosen["method"], chosen["cache_block"], strict=True)]
    chosen = chosen.assign(rank=ranks, line=lines).sort_values(["rank", "cache_block"])
    grid = chosen.pivot_table("speedup_over_autoregressive", "line", "batch")
    return grid.reindex(chosen["line"].unique())


def _line(method: str, cache_block: float) -> str:
    name = TIMED[method].table5_row.removeprefix("MARS + ")
    return name if np.isnan(cache_block) else f"{name} {cache_block:.0f}"


def _cells(panel: Axes, grid: pd.DataFrame):
    values = grid.to_numpy()
    top = max(MARGIN, np.nanmax(values), 2 - np.nanmin(values))
    norm = TwoSlopeNorm(1, vmin=min(2 - MARGIN, np.nanmin(values)), vmax=top)
    image = panel.imshow(values, norm=norm, cmap="PuOr", aspect="auto")
    panel.grid(False)
    panel.set_xticks(range(len(grid.columns)), grid.columns)
    panel.set_yticks(range(len(grid)), grid.index)
    panel.set(xlabel="batch size", ylabel="method, cache block")
    for (line, column), value in np.ndenumerate(values):
        dark = abs(norm(value) - 0.5) > 0.3
        text = "not run" if np.isnan(value) else f"{value:.2f}"
        panel.text(column, line, text, ha="center", va="center", color="white" if dark else "black")
    return image
