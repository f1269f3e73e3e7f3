"""Verbs that time decoding; each wants the machine for itself."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from mars.cli.common import (
    DataManifest,
    Folder,
    Record,
    Spec,
    app,
    made_folder,
    read_spec,
    read_tau,
)
from mars.errors import UserError
from mars.provenance.fingerprint import code_fingerprint
from mars.provenance.manifest import write_manifest
from mars.provenance.record import hardware, recorded, versions


@app.command()
def speed(
    model: Annotated[Path | None, typer.Option(help="a checkpoint folder")] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="instead: tiny, qwen2.5-0.5b or qwen2.5-7b")
    ] = None,
    prescribed: Annotated[
        float | None, typer.Option(help="with random weights: tokens accepted per forward")
    ] = None,
    prompts: Annotated[str, typer.Option(help="JSONL file, or built-in")] = "built-in",
    prompt_count: Annotated[int, typer.Option(help="how many of them")] = 64,
    methods: str = "hf,autoregressive,cursor,cursor-lossless,block_cache,window",
    batch: str = "1,4,8,16",
    tau: Annotated[str, typer.Option(help="'none': one token per forward")] = "0.95",
    cache_block: Annotated[str, typer.Option(help="granularities of block_cache")] = "4,8,16,32,64",
    block_size: Annotated[int | None, typer.Option(help="default: as trained, or 4")] = None,
    max_new_tokens: int = 128,
    repeats: int = 5,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    threads: Annotated[int | None, typer.Option(help="default: PyTorch's choice")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="also shares of a step")] = False,
    output: Path = Path("results/speed"),
    markdown: Annotated[
        Path | None, typer.Option(help="print the tables of this output, measure nothing")
    ] = None,
) -> None:
    """Time decoding methods side by side; records, a CSV and a Markdown table. See docs/speed.md.

    Started again it measures the batch sizes that are missing.
    """
    if markdown is not None:
        from mars.speed.summary import markdown as section

        print(section(markdown), end="")
        return
    if (model is None) == (random_weights is None):
        raise UserError("give --model or --random-weights, one of them.")
    if prescribed is not None and model is not None:
        raise UserError("--prescribed is for --random-weights: a checkpoint accepts by itself.")
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision is {precision!r}; give float32 or bfloat16.")
    batches, blocks = _integers("--batch", batch), _integers("--cache-block", cache_block)
    taus = [read_tau(text) for text in tau.split(",")]

    import torch

    from mars.speed.benchmark import benchmark, checkpoint_subject, random_subject

    if threads is not None:
        torch.set_num_threads(threads)
    amounts: dict[str, Any] = {
        "prompt_count": prompt_count,
        "max_new_tokens": max_new_tokens,
        "precision": precision,
    }
    if model is not None:
        subject = checkpoint_subject(model, prompts=prompts, block_size=block_size, **amounts)
    else:
        subject = random_subject(
            str(random_weights), prescribed=prescribed, block_size=block_size or 4, **amounts
        )
    benchmark(
        subject,
        methods=methods.split(","),
        batches=batches,
        taus=taus,
        cache_blocks=blocks,
        repeats=repeats,
        output=output,
        spec={"code": code_fingerprint(["mars.speed.timing"]), "versions": versions()},
        about=_circumstances(shlex.join(["mars", *sys.argv[1:]])),
        profile=profile,
    )
    print(f"{output / 'summary.md'} and summary.csv are written.")


@app.command()
def speed_sweep(
    spec: Spec, checkpoint: Folder, output: Folder, record: Record, data: DataManifest
) -> None:
    """Time decoding methods, batch sizes and cache granularities: Table 5 and the heat map.

    Started again it measures the batch sizes that are missing.
    """
    from mars.data.hub import hub_root
    from mars.speed.wall_clock import sweep

    plan = read_spec(spec, "speed_sweep")
    config = plan["config"]
    inputs = [data, checkpoint / "manifest.json"]
    with (
        recorded(record, plan, inputs, [output / "manifest.json"]),
        tempfile.TemporaryDirectory() as work,
    ):
        sweep(
            **config | {"rounds": {int(batch): n for batch, n in config["rounds"].items()}},
            checkpoint=checkpoint,
            hub=hub_root(data),
            work=Path(work),
            output=output,
            spec={key: plan[key] for key in ("code", "lock")},
            about=_circumstances("mars speed-sweep"),
        )
        write_manifest(output)


@app.command()
def speculative(
    spec: Spec,
    output: Folder,
    record: Record,
    data: DataManifest,
    checkpoints: Annotated[list[Path], typer.Argument(help="manifests of all models in the pairs")],
) -> None:
    """Time MARS together with speculative decoding: Table 6."""
    from mars.data.hub import hub_root
    from mars.speed.speculative import measure_composition

    plan = read_spec(spec, "speculative")
    with (
        made_folder(record, plan, [data, *checkpoints], output) as (folder, _),
        tempfile.TemporaryDirectory() as work,
    ):
        measure_composition(
            **plan["config"],
            checkpoints={path.parent.name: path.parent for path in checkpoints},
            hub=hub_root(data),
            work=Path(work),
            output=folder,
            about=_circumstances("mars speculative"),
        )


@app.command()
def live_tau(
    spec: Spec, checkpoint: Folder, output: Folder, record: Record, data: DataManifest
) -> None:
    """Serve a load that rises and falls with tau fixed and with tau adapted to the queue."""
    from mars.data.hub import hub_root
    from mars.speed.live_tau import measure_live_tau

    plan = read_spec(spec, "live_tau")
    inputs = [data, checkpoint / "manifest.json"]
    with (
        made_folder(record, plan, inputs, output) as (folder, _),
        tempfile.TemporaryDirectory() as work,
    ):
        measure_live_tau(
            **plan["config"],
            checkpoint=checkpoint,
            hub=hub_root(data),
            work=Path(work),
            output=folder,
            about=_circumstances("mars live-tau"),
        )


def _circumstances(command: str) -> dict[str, Any]:
    """What a record of a measurement says of the machine, the software and the command."""
    import torch  # noqa: F401 - so that GPUs are named

    return {"hardware": hardware(), "versions": versions(), "command": command}


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} is {text!r}; give numbers separated by commas.") from error
