"""Verbs that train, and plot how it went."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import Record, Spec, app, read_spec
from mars.config.experiment import Architecture, Training
from mars.machine.gpus import end_with_parent
from mars.provenance.files import canonical_json, sha256_text
from mars.provenance.manifest import write_manifest
from mars.provenance.record import recorded


@app.command()
def train(
    spec: Spec,
    parent: Annotated[Path, typer.Option(help="parent checkpoint; to pre-train: the tokenizer")],
    dataset: Annotated[Path, typer.Option(help="tokenised examples (`mars tokenize`)")],
    output: Annotated[Path, typer.Option(help="the finished checkpoint")],
    record: Record,
    checkpoint_minutes: Annotated[float, typer.Option(help="time between saves")] = 15,
) -> None:
    """Pre-train or fine-tune one model; started again after a kill it goes on where it was."""
    from mars.checkpoints.export import add_custom_generate
    from mars.training import train as run

    if "RANK" in os.environ:  # one of several processes that a launcher started
        end_with_parent()
    plan = read_spec(spec, "train")
    config = plan["config"]
    architecture = config["architecture"]
    work = output.parent / f".{output.name}.work-{sha256_text(canonical_json(plan))[:12]}"
    training = partial(
        run,
        method=config["method"],
        training=Training(**config["training"], checkpoint_minutes=checkpoint_minutes),
        block_size=config["block_size"],
        ar_weight=config["ar_weight"],
        architecture=Architecture(**architecture) if architecture else None,
        parent=parent,
        dataset=dataset,
        work=work,
        output=output,
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes only the first one records
        training()
        return
    inputs = [parent / "manifest.json", dataset / "manifest.json"]
    with recorded(record, plan, inputs, [output / "manifest.json"]) as facts:
        facts |= training()
        if config["method"] == "mars":
            add_custom_generate(output)
        write_manifest(output)
    shutil.rmtree(work, ignore_errors=True)  # nothing is left to resume


@app.command()
def training_curves(
    spec: Spec,
    output: Annotated[Path, typer.Option(help="path without suffix; .pdf and .png are written")],
    record: Record,
    curves: Annotated[list[Path], typer.Argument(help="training.jsonl of each model, in order")],
) -> None:
    """Plot the training losses of all models."""
    from mars.paper.figures.training_curves import plot_curves

    plan = read_spec(spec, "training_curves")
    outputs = [output.with_suffix(".pdf"), output.with_suffix(".png")]
    with recorded(record, plan, curves, outputs):
        plot_curves(dict(zip(plan["config"]["models"], curves, strict=True)), outputs)
