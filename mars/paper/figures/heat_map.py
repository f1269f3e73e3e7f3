"""Heat map of the block cache: speed-up over AR by cache block and batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from mars.errors import UserError
from mars.figure_style import COLUMN, figure_for
from mars.files import write_atomic

CAPTION = (
    "Block cache: tokens per second relative to autoregressive decoding of the same batch, by "
    "cache block and batch size; 1 (white) is the speed of AR. Lines without a cache block are "
    "the methods named."
)
MARGIN = 1.05  # the scale of colours reaches at least so far from 1, and as far down


def draw(sweep: Path, output: Path) -> list[Path]:
    """Write ``heat_map.pdf``, ``.png`` and the cells drawn, ``.csv``, into the folder ``output``.

    Args:
        sweep: tidy CSV with the columns ``row`` (the method), ``batch_size``, ``cache_block`` (not
            a number for methods without), ``quantity`` (``speedup_over_ar`` is drawn), ``value``.

    Raises:
        UserError: the sweep has no speed-up.
    """
    grid = speedups(pd.read_csv(sweep))
    if grid.empty:
        raise UserError(f"{sweep} has no speed-up over AR; measure it again with its baseline.")
    files = [Path(output) / f"heat_map.{suffix}" for suffix in ("pdf", "png", "csv")]
    with figure_for(files[:2], COLUMN, 0.9 + 0.24 * len(grid)) as figure:
        panel = figure.subplots()
        image = _cells(panel, grid)
        figure.colorbar(image, ax=panel, label="tokens/s over AR's", shrink=0.9)
    write_atomic(files[2], grid.to_csv())
    return files


def speedups(cells: pd.DataFrame) -> pd.DataFrame:
    """Speed-up over AR: a line per method and cache block, a column per batch size."""
    chosen = cells[cells["quantity"] == "speedup_over_ar"].copy()
    for column in ("value", "cache_block", "batch_size"):
        chosen[column] = pd.to_numeric(chosen[column], errors="coerce")
    chosen = chosen.dropna(subset=["value", "batch_size"])
    blocks = chosen["cache_block"]
    # AR against itself is no news.
    chosen = chosen[blocks.notna() | ~chosen["row"].str.startswith("AR")]
    names = [
        row if pd.isna(block) else f"{block:.0f}"
        for row, block in zip(chosen["row"], chosen["cache_block"], strict=True)
    ]
    chosen = chosen.assign(line=names, batch_size=chosen["batch_size"].astype(int))
    order = chosen.sort_values("cache_block", na_position="first")["line"].unique()
    return chosen.pivot_table("value", "line", "batch_size").reindex(order)


def _cells(panel: Axes, grid: pd.DataFrame):
    values = grid.to_numpy()
    top = max(MARGIN, np.nanmax(values), 2 - np.nanmin(values))
    norm = TwoSlopeNorm(1, vmin=min(2 - MARGIN, np.nanmin(values)), vmax=top)
    image = panel.imshow(values, norm=norm, cmap="PuOr", aspect="auto")
    panel.grid(False)
    panel.set_xticks(range(len(grid.columns)), grid.columns)
    panel.set_yticks(range(len(grid)), grid.index)
    panel.set(xlabel="batch size", ylabel="cache block")
    for (line, column), value in np.ndenumerate(values):
        dark = abs(norm(value) - 0.5) > 0.3
        text = "not run" if np.isnan(value) else f"{value:.2f}"
        panel.text(column, line, text, ha="center", va="center", color="white" if dark else "black")
    return image
