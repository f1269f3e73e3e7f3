"""The verb that times decoding; it needs the machine to itself."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mars.cli.common import app, read_tau
from mars.errors import UserError
from mars.provenance.fingerprint import code_of
from mars.provenance.record import versions


@app.command()
def speed(
    model: Annotated[Path | None, typer.Option(help="a checkpoint folder")] = None,
    random_weights: Annotated[
        str | None, typer.Option(help="instead: tiny, qwen2.5-0.5b or qwen2.5-7b")
    ] = None,
    simulated_acceptance: Annotated[
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
    repeats: Annotated[int, typer.Option(help="rounds at most; see docs/speed.md")] = 5,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    threads: Annotated[int | None, typer.Option(help="default: PyTorch's choice")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="also shares of a step")] = False,
    output: Path = Path("results/speed"),
    markdown: Annotated[
        Path | None, typer.Option(help="print the tables of this output, measure nothing")
    ] = None,
) -> None:
    """Time decoding methods side by side; records, a CSV and a Markdown table. See docs/speed.md.

    If started again, it measures the batch sizes that are missing.
    """
    if markdown is not None:
        from mars.speed.summary import markdown as section

        print(section(markdown), end="")
        return
    if (model is None) == (random_weights is None):
        raise UserError("give either --model or --random-weights.")
    if simulated_acceptance is not None and model is not None:
        raise UserError(
            "--simulated-acceptance is for --random-weights: a checkpoint accepts by itself."
        )
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision is {precision!r}; give float32 or bfloat16.")
    batches, blocks = _integers("--batch", batch), _integers("--cache-block", cache_block)
    taus = [read_tau(text) for text in tau.split(",")]

    import torch

    from mars.speed.benchmark import benchmark, checkpoint_workload, random_workload
    from mars.speed.timing import PACKAGES, circumstances

    if threads is not None:
        torch.set_num_threads(threads)
    amounts: dict[str, Any] = {
        "prompt_count": prompt_count,
        "max_new_tokens": max_new_tokens,
        "precision": precision,
    }
    if model is not None:
        workload = checkpoint_workload(model, prompts=prompts, block_size=block_size, **amounts)
    else:
        workload = random_workload(
            str(random_weights),
            simulated_acceptance=simulated_acceptance,
            block_size=block_size or 4,
            **amounts,
        )
    benchmark(
        workload,
        methods=methods.split(","),
        batches=batches,
        taus=taus,
        cache_blocks=blocks,
        repeats=repeats,
        output=output,
        spec={"code": code_of(benchmark).fingerprint, "versions": versions(PACKAGES)},
        circumstances=circumstances(shlex.join(["mars", *sys.argv[1:]])),
        profile=profile,
    )
    print(f"{output / 'summary.md'} and summary.csv are written.")


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} is {text!r}; give numbers separated by commas.") from error
