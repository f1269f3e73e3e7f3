"""MARS against longer AR SFT: accuracy over the tokens that fine-tuning has read.

The paper's Table 2 matches the compute of MARS by an AR SFT of twice the epochs. Here every
training is a point, so that a gain is seen beside what seeds alone do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from mars.paper.evaluations import Evaluations, ModelAndSetting
from mars.paper.figures.pareto import look
from mars.paper.figures.style import BLACK, PAGE, add_tip, figure_for
from mars.paper.figures.sweep import say_not_run
from mars.paper.published import AVERAGE, SCALES, STAGE_EPOCHS
from mars.paper.specs import ModelIdentity
from mars.paper.tables.tidy_csv import csv_text
from mars.provenance.files import write_atomic

SURE = 1.96  # standard errors to either side: 95 %


class Trained(NamedTuple):
    """One model: what its fine-tuning read, and its average accuracy in percent, and by seed."""

    scale: str
    block_size: int | None
    label: str
    model: str
    tokens: float
    accuracy: float
    stderr: float | None
    seeds: tuple[float, ...]


def draw(evaluations: Evaluations, tokens: Mapping[str, float], output: Path) -> list[Path]:
    """Write ``compute.pdf``, ``.png``, ``.svg`` and the points, ``.csv``, into ``output``.

    Args:
        tokens: by model, those that its fine-tuning and that of its parents read.
    """
    points = trained_models(evaluations, tokens)
    files = [output / f"compute.{suffix}" for suffix in ("pdf", "png", "svg")]
    with figure_for(files, PAGE, 2.6) as figure:
        panels = figure.subplots(1, len(SCALES), squeeze=False)[0]
        for panel, scale in zip(panels, SCALES, strict=True):
            here = [point for point in points if point.scale == scale]
            _panel(panel, here)
            panel.set(title=scale, xlabel="tokens read by fine-tuning (millions)")
        panels[0].set_ylabel("average accuracy (%), one token")
        handles = {
            label: handle
            for panel in panels
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(handles.values(), handles, loc="outside lower center", ncols=5)
    columns = ("scale", "block_size", "label", "model", "tokens", "accuracy", "stderr", "seeds")
    rows = [[*point[:-1], ";".join(map(str, point.seeds))] for point in points]
    write_atomic(output / "compute.csv", csv_text(columns, rows))
    return [*files, output / "compute.csv"]


def trained_models(evaluations: Evaluations, tokens: Mapping[str, float]) -> list[Trained]:
    """The models that were evaluated on all benchmarks, those of several seeds as one."""
    spec = evaluations.spec
    points = []
    for name, model in spec.models.items():
        run = ModelAndSetting(name, evaluations.setting_of(name, {}))
        found = evaluations.measure("accuracy", run, [AVERAGE])[AVERAGE]
        if model.seed_of is None and found is not None:
            scale = spec.scales[model.scale].stands_for
            read = tokens[name]
            values = (found.value, found.stderr, found.seeds)
            size = model.block_size
            points.append(Trained(scale, size, _label(model), name, read, *values))
    return sorted(points, key=lambda point: (point.scale, point.block_size or 0, point.tokens))


def _label(model: ModelIdentity) -> str:
    if model.method == "mars":
        return f"MARS (B={model.block_size})"
    epochs = STAGE_EPOCHS * model.epochs_factor
    return "AR SFT" if epochs == STAGE_EPOCHS else f"AR SFT ({epochs:g} ep)"


def _look(point: Trained) -> dict[str, Any]:
    """As in Figure 3; AR SFT in black, that of more epochs as a square."""
    if point.block_size is not None:
        return {**look(point.block_size, True), "linestyle": "none"}
    marker = "o" if point.label == "AR SFT" else "s"
    return {"color": BLACK, "marker": marker, "markerfacecolor": "white", "linestyle": "none"}


def _panel(panel: Axes, points: list[Trained]) -> None:
    if not points:
        say_not_run(panel)
        panel.set(xticks=[], yticks=[])
    for point in points:
        shown = _look(point)
        millions, bar = point.tokens / 1e6, SURE * (point.stderr or 0)
        panel.errorbar(
            [millions], [point.accuracy], yerr=[bar], label=point.label, markersize=5, **shown
        )
        dashes = {"marker": "_", "color": shown["color"], "markersize": 7, "linestyle": "none"}
        panel.plot([millions] * len(point.seeds), point.seeds, **dashes)
        error = "" if point.stderr is None else f" ± {point.stderr:.1f}"
        text = f"{point.label}: {point.accuracy:.1f}{error} %, {millions:.2f} million tokens"
        add_tip(panel, millions, point.accuracy, text)
