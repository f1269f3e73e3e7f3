"""How every figure looks: legible at the width of a column, colour-blind safe, fonts embedded."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars.provenance.files import write_atomic

COLUMN, PAGE = 3.35, 6.9  # inches: one column of a two-column paper, and the whole width
# Okabe and Ito's palette without its yellow, which is too pale for lines on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse the default's Type 3
    "svg.fonttype": "none",  # text stays text
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "errorbar.capsize": 1.5,
    "image.cmap": "cividis",
}


@contextmanager
def figure_for(outputs: Iterable[Path], width: float, height: float) -> Iterator[Figure]:
    """An empty figure of ``width`` x ``height`` inches, written to ``outputs`` at the end.

    The ending of each output (``.pdf``, ``.png``, ``.svg``) chooses its format. The same drawing
    gives the same bytes.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for output in map(Path, outputs):
            stream = io.BytesIO()
            with rc_context({"svg.hashsalt": output.stem}):
                figure.savefig(stream, format=output.suffix[1:], dpi=200, **_LOOKS[output.suffix])
            drawn = stream.getvalue()
            write_atomic(output, _with_tips(drawn) if output.suffix == ".svg" else drawn)


_LOOKS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"metadata": {"CreationDate": None}},
    ".svg": {
        "transparent": True,
        "metadata": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    },
}
_TIP = "tip: "


def add_tip(panel: Axes, x: float, y: float, text: str) -> None:
    """Let a point of the drawing say ``text`` where it is shown as SVG: it gets an unseen mark."""
    panel.plot([x], [y], "o", markersize=8, color=BLACK, **unseen(text))


def unseen(text: str) -> dict[str, Any]:
    """The look of what is there to say ``text`` only, on top of what is seen."""
    return {"alpha": 0, "zorder": 9, "gid": _TIP + text}


def _with_tips(drawn: bytes) -> bytes:
    """An SVG whose marked points have their text as title, and for scripts as ``data-tip``."""
    marked = rf'<g id="{_TIP}([^"]*)">'
    group = r'<g class="point" data-tip="\1"><title>\1</title>'
    return re.sub(marked, group, drawn.decode()).encode()
