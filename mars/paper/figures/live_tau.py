"""tau as a live knob: the same arrivals served under three policies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mars.errors import UserError
from mars.paper.figures.style import BLACK, COLOURS, PAGE, figure_for
from mars.provenance.files import read_json

NAMES = {"tau-1": "τ = 1", "tau-low": "low τ", "adaptive": "adaptive τ"}
LINES = ("-", "--", "-.")
PER_BIN = 8  # requests in a bar of the arrivals, on average


def draw(folder: Path, output: Path) -> list[Path]:
    """Write ``live_tau.pdf`` and ``.png`` into the folder ``output``.

    Args:
        folder: one JSON file per policy, ``<policy>.json``: ``requests`` with ``arrival``, ``end``
            (seconds); ``timeline`` with ``time``, ``tau``, ``queue``; ``latency`` with ``median``,
            ``p95`` (seconds).

    Raises:
        UserError: a policy that was not measured.
    """
    runs = {policy: _read(Path(folder) / f"{policy}.json") for policy in NAMES}
    files = [Path(output) / f"live_tau.{suffix}" for suffix in ("pdf", "png")]
    with figure_for(files, PAGE, 3.6) as figure:
        panels = figure.subplot_mosaic(
            [["arrivals", "latency"], ["queue", "latency"], ["tau", "latency"]]
        )
        _over_time(panels, runs)
        figure.align_ylabels([panels[name] for name in ("arrivals", "queue", "tau")])
        _latency(panels["latency"], runs)
    return files


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; measure the live tau again (mars live-tau).")
    return read_json(path)


def _over_time(panels: Mapping[str, Axes], runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Arrivals, which are the same for all policies; then queue and tau of each."""
    arrivals = [request["arrival"] for request in next(iter(runs.values()))["requests"]]
    counts, edges = np.histogram(arrivals, bins=max(1, len(arrivals) // PER_BIN))
    panels["arrivals"].stairs(counts / np.diff(edges), edges, color=BLACK, fill=True, alpha=0.4)
    for number, run in enumerate(runs.values()):
        times = [moment["time"] for moment in run["timeline"]]
        taus = [1.0 if moment["tau"] is None else moment["tau"] for moment in run["timeline"]]
        look: dict[str, Any] = {"color": COLOURS[number], "linestyle": LINES[number]}
        queue = [moment["queue"] for moment in run["timeline"]]
        panels["queue"].step(times, queue, where="post", **look)
        panels["tau"].step(times, taus, where="post", **look)
    for name, label in (("arrivals", "arrivals/s"), ("queue", "waiting"), ("tau", "τ")):
        panels[name].set_ylabel(label)
        panels[name].sharex(panels["tau"])
        panels[name].tick_params(labelbottom=name == "tau")
    panels["queue"].set_ylim(bottom=-0.5)
    panels["tau"].set_ylim(0, 1.05)
    panels["tau"].set_xlabel("seconds")


def _latency(panel: Axes, runs: Mapping[str, Mapping[str, Any]]) -> None:
    for number, (policy, run) in enumerate(runs.items()):
        latencies = sorted(request["end"] - request["arrival"] for request in run["requests"])
        shares = 100 * np.arange(1, len(latencies) + 1) / len(latencies)
        median, p95 = run["latency"]["median"], run["latency"]["p95"]
        panel.step(
            latencies,
            shares,
            where="post",
            color=COLOURS[number],
            linestyle=LINES[number],
            label=f"{NAMES[policy]}: {median:.2f} s, 95 %: {p95:.2f} s",
        )
    panel.set(xlabel="latency (s)", ylabel="requests answered (%)", ylim=(0, 101))
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.legend(loc="lower right")
