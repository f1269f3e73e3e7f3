"""The registry of artefacts: every table and figure that an experiment can make.

A table of evaluations is declared here and nowhere else: its rows, how they are laid out, and the
entry of :data:`ARTEFACTS`. The configuration, the workflow, the page, the comparison and the audit
read the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars.config.experiment import Experiment
from mars.paper import published
from mars.paper.evaluations import of_rows
from mars.paper.figures import stage as figures
from mars.paper.specs import EvaluationsBehind, TableSpec
from mars.paper.tables import findings, hyperparameters, wall_clock
from mars.paper.tables import stage as tables
from mars.paper.tables.evaluated import (
    EvaluatedTable,
    any_row,
    is_ar,
    lossless,
    with_authors_window,
    with_extra_mask,
    with_inverse_t,
    with_penalty,
    without_sft_loss,
)
from mars.provenance.stage import Job, Stage

OPENED = {"table": ("csv", "md", "tex"), "figure": ("pdf", "png")}
"""Suffixes of the files that people open, by kind of artefact."""


@dataclass(frozen=True)
class Artefact:
    """A table or figure.

    Attributes:
        name: of its files, and in the configuration.
        title: on the page.
        stage: what makes it, named as the artefact.
        further: suffixes of the files beside those that people open.
        compared: the number of the paper's table that its cells are compared with.
        timed: the part of the section `speed` that it shows.
        from_evaluations: whether its cells can be derived from evaluation records.
        listed: whether the configuration lists it; else it is made when there is what it shows.
    """

    name: str
    title: str
    caption: str
    stage: Stage[Any]
    further: tuple[str, ...] = ()
    compared: int | None = None
    timed: str | None = None
    from_evaluations: bool = False
    listed: bool = True

    @property
    def kind(self) -> str:
        """``table`` or ``figure``: the rule that makes it, and its folder but for an s."""
        return self.stage.rule

    @property
    def files(self) -> list[str]:
        """The files that people open, relative to the folder of results."""
        return [f"{self.kind}s/{self.name}.{suffix}" for suffix in OPENED[self.kind]]

    @property
    def outputs(self) -> list[str]:
        """All of its files, relative to the folder of results."""
        further = ("jsonl",) if self.kind == "table" else self.further
        return [*self.files, *(f"{self.kind}s/{self.name}.{suffix}" for suffix in further)]


class OfEvaluations(Artefact):
    """A table of evaluations, whose rows say what it needs."""

    def __init__(
        self,
        declared: EvaluatedTable,
        title: str,
        run: Callable[[TableSpec, Job], list[Path]],
        compared: int | None = None,
    ):
        def resolve(experiment: Experiment) -> TableSpec:
            return of_rows(declared.all_rows(), experiment)

        inputs = EvaluationsBehind(resolve)
        stage = Stage(declared.name, TableSpec, resolve, run, inputs, rule="table")
        more: dict[str, Any] = {"compared": compared, "from_evaluations": True}
        super().__init__(declared.name, title, declared.caption, stage, **more)


# --- the tables of evaluations ------------------------------------------------------------------

TABLE_2 = EvaluatedTable(
    "table2",
    "One-token mode: accuracy (%), one token per forward.",
    published.table2,
    beyond=((is_ar, with_penalty),),
)
TABLE_3 = EvaluatedTable(
    "table3",
    "The SFT loss and the block size, one-token mode: accuracy (%).",
    published.table3,
    beyond=((without_sft_loss, with_inverse_t),),
)
TABLE_4 = EvaluatedTable(
    "table4",
    "Multi-token mode: accuracy (%), its change from one-token mode (points), tokens per forward.",
    published.table4,
    lines=("scale", "row", "quantity"),
    beyond=((any_row, lossless), (any_row, with_extra_mask), (any_row, with_authors_window)),
)
TABLE_8 = EvaluatedTable(
    "table8",
    "Threshold sweep: accuracy (%) and tokens per forward over tau and the block size B.",
    published.table8,
    lines=("tau",),
    columns=("block_size", "quantity"),
    blocks=("scale", "sft_loss", "benchmark"),
)
TABLE_9 = EvaluatedTable(
    "table9",
    "Jacobi decoding of the AR model beside MARS: accuracy (%), tokens per forward.",
    published.table9,
    lines=("row", "quantity"),
    beyond=((is_ar, with_penalty),),
)


# A stage's code is what its own function reaches, so that each has one.
def write_table2(spec: TableSpec, job: Job) -> list[Path]:
    """Write Table 2."""
    return tables.write_evaluated(TABLE_2, spec, job)


def write_table3(spec: TableSpec, job: Job) -> list[Path]:
    """Write Table 3."""
    return tables.write_evaluated(TABLE_3, spec, job)


def write_table4(spec: TableSpec, job: Job) -> list[Path]:
    """Write Table 4."""
    return tables.write_evaluated(TABLE_4, spec, job)


def write_table8(spec: TableSpec, job: Job) -> list[Path]:
    """Write Table 8."""
    return tables.write_evaluated(TABLE_8, spec, job)


def write_table9(spec: TableSpec, job: Job) -> list[Path]:
    """Write Table 9."""
    return tables.write_evaluated(TABLE_9, spec, job)


# --- the registry: no call but of classes, for a call would count as code of every table ---------

ARTEFACTS: dict[str, Artefact] = {
    artefact.name: artefact
    for artefact in (
        OfEvaluations(TABLE_2, "Table 2: one-token mode", write_table2, compared=2),
        OfEvaluations(TABLE_3, "Table 3: SFT loss and block size", write_table3, compared=3),
        OfEvaluations(TABLE_4, "Table 4: multi-token mode", write_table4, compared=4),
        Artefact(
            "table5",
            "Table 5: wall clock",
            wall_clock.CAPTION_5,
            tables.TABLE_5,
            timed="wall_clock",
            compared=5,
        ),
        Artefact(
            "table6",
            "Table 6: with speculative decoding",
            wall_clock.CAPTION_6,
            tables.TABLE_6,
            timed="speculative",
            compared=6,
        ),
        Artefact(
            "table7",
            "Table 7: hyper-parameters and cost",
            hyperparameters.CAPTION,
            tables.TABLE_7,
        ),
        OfEvaluations(TABLE_8, "Table 8: threshold sweep", write_table8, compared=8),
        OfEvaluations(TABLE_9, "Table 9: Jacobi decoding", write_table9, compared=9),
        Artefact(
            "findings",
            "The authors' released code: numbers both ways",
            findings.CAPTION,
            tables.FINDINGS,
            from_evaluations=True,
        ),
        Artefact(
            "figure1",
            "Figure 1: tokens accepted together",
            figures.EXAMPLE_CAPTION,
            figures.FIGURE_1,
            further=("html", "json"),
        ),
        Artefact(
            "figure3",
            "Figure 3: speed and quality",
            "Speed and quality: accuracy (%) over tokens per forward on GSM8K and HumanEval as tau "
            "falls from left to right. Solid: MARS; dashed: MARS without SFT loss; dotted: AR SFT. "
            "Upper row: this experiment, bars are one standard error; lower row: the paper "
            "(Table 8).",
            figures.FIGURE_3,
            further=("svg", "csv"),
        ),
        Artefact(
            "figure6",
            "Figure 6: acceptance metrics",
            "Acceptance metrics: accuracy (%) over tokens per forward on GSM8K of MARS B=4 at the "
            "small scale, as the threshold of each metric is loosened from left to right. Bars are "
            "one standard error. The paper shows this as a plot only, without numbers to set "
            "beside it.",
            figures.FIGURE_6,
            further=("svg", "csv"),
        ),
        Artefact(
            "heat_map",
            "Block cache: heat map",
            "Block cache: tokens per second relative to autoregressive decoding of the same batch, "
            "by cache block and batch size; 1 (white) is the speed of AR. Named lines have another "
            "window or cache: none, the cursor cache of this project, or AR decoding by "
            "transformers.",
            figures.HEAT_MAP,
            further=("csv",),
            timed="wall_clock",
        ),
        Artefact(
            "live_tau",
            "tau as a live knob",
            "tau changed while requests are served: arrivals per second, requests waiting, tau, "
            "and the share of requests answered within a given time (legend: median and 95th "
            "percentile), for tau fixed at 1, fixed low, and adapted to the length of the queue.",
            figures.LIVE_TAU,
            timed="live_tau",
        ),
        Artefact(
            "training_curves",
            "Training losses",
            "Loss of every training stage over its optimiser steps, smoothed; thin: single steps.",
            figures.CURVES,
            listed=False,
        ),
    )
}


def artefacts_of(experiment: Experiment) -> list[str]:
    """The names of the artefacts that an experiment makes."""
    trained = ["training_curves"] if experiment.trained_models() else []
    return [*experiment.artefacts, *trained]
