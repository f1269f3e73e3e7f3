"""Verbs that fetch, generate and tokenise data, and import ready models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import Configs, DataManifest, Folder, Record, Spec, app, made_folder, read_spec
from mars.config.experiment import GeneratedData, HubBase, PackageBase, load_experiment
from mars.errors import UserError
from mars.provenance.manifest import write_manifest
from mars.provenance.record import recorded
from mars.stages import repositories_of


@app.command()
def fetch(
    config: Configs,
    to: Annotated[Path | None, typer.Option(help="the mirror; default: $MARS_HUB_MIRROR")] = None,
) -> None:
    """Fetch all that an experiment needs from the hub into one folder; goes on after a kill."""
    from mars.data.mirror import Wanted, fetch_splitter, fill

    folder = to or os.environ.get("MARS_HUB_MIRROR")
    if not folder:
        raise UserError("give --to <folder>, or set MARS_HUB_MIRROR to it.")
    mirror = Path(folder).resolve()
    experiment = load_experiment(*config)
    problems = fill(mirror, [Wanted(**item) for item in repositories_of(experiment)])
    counts_sentences = any(b.task.startswith("ifeval") for b in experiment.benchmarks.values())
    if counts_sentences and (warning := fetch_splitter(mirror)):
        print(f"Note: {warning}")
    if problems:
        raise UserError("; ".join(["not everything could be fetched", *problems]))
    print(f"{mirror} holds all of {experiment.experiment}: export MARS_HUB_MIRROR={mirror}")


@app.command()
def generate_data(spec: Spec, output: Folder, record: Record) -> None:
    """Write the instruction corpus and the miniature benchmarks, in hub layout."""
    from mars.data.minibench.generate import generate

    plan = read_spec(spec, "generate_data")
    with made_folder(record, plan, [], output) as (folder, _):
        generate(GeneratedData(**plan["config"]), folder)


@app.command()
def fetch_dataset(spec: Spec, output: Folder, record: Record) -> None:
    """Copy one data set from the hub, or from the mirror $MARS_HUB_MIRROR, into a folder."""
    from mars.data.hub import fetch

    plan = read_spec(spec, "fetch_dataset")
    with recorded(record, plan, [], [output / "manifest.json"]) as facts:
        facts |= fetch(plan["config"]["repository"], "dataset", plan["config"]["revision"], output)
        write_manifest(output, **facts)


@app.command()
def train_tokenizer(spec: Spec, data: DataManifest, output: Folder, record: Record) -> None:
    """Train the tokenizer of the models that are trained from scratch."""
    from mars.data.tokenizer import train_from_folder

    plan = read_spec(spec, "train_tokenizer")
    with made_folder(record, plan, [data], output) as (folder, _):
        train_from_folder(data.parent, plan["config"]["vocabulary"], folder)


@app.command()
def import_base(spec: Spec, output: Folder, record: Record) -> None:
    """Write a ready base model (package or hub) as a checkpoint with a mask token."""
    from pydantic import TypeAdapter

    from mars.checkpoints.base import import_base as run

    plan = read_spec(spec, "import_base")
    with made_folder(record, plan, [], output) as (folder, facts):
        base = TypeAdapter[HubBase | PackageBase](HubBase | PackageBase)
        facts |= run(base.validate_python(plan["config"]), folder)


@app.command()
def import_released(spec: Spec, output: Folder, record: Record) -> None:
    """Write a checkpoint that the authors released as a plain one; their code is never run."""
    from mars.checkpoints.export import add_custom_generate
    from mars.checkpoints.released import import_released as run

    plan = read_spec(spec, "import_released")
    with made_folder(record, plan, [], output) as (folder, facts):
        facts |= run(**plan["config"], output=folder)
        if plan["config"]["method"] == "mars":
            add_custom_generate(folder)


@app.command()
def tokenize(
    spec: Spec, data: DataManifest, tokenizer: Folder, output: Folder, record: Record
) -> None:
    """Turn instructions (chat format) or documents into token ids with prompt lengths."""
    from mars.data.chat import tokenize_documents, tokenize_instructions
    from mars.data.hub import hub_root
    from mars.data.tokenizer import load_tokenizer

    plan = read_spec(spec, "tokenize")
    config = plan["config"]
    inputs = [data, tokenizer / "manifest.json"]
    with made_folder(record, plan, inputs, output) as (folder, _):
        loaded = load_tokenizer(tokenizer)
        dataset = hub_root(data) / config["dataset"]
        if plan["kind"] == "documents":
            tokenize_documents(dataset, loaded, max_length=config["max_length"], output=folder)
        else:
            options = {key: value for key, value in config.items() if key != "dataset"}
            tokenize_instructions(dataset, loaded, **options, output=folder)
