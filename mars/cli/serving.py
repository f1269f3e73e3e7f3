"""The verb that serves a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mars.cli.common import app, read_tau
from mars.errors import UserError


@app.command()
def serve(
    checkpoint: Annotated[Path, typer.Argument(help="any checkpoint folder")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    name: Annotated[str | None, typer.Option(help="the model's; default: the folder's")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="MARS_API_KEY", help="clients must bring it")
    ] = None,
    tau: Annotated[str, typer.Option(help="of requests without one; 'none': one token")] = "0.95",
    low_tau: Annotated[
        float | None, typer.Option(help="adapt tau to the load, between --tau and this")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="sequences decoded side by side")] = 16,
    max_waiting: Annotated[int, typer.Option(min=0, help="requests without a slot")] = 256,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="tokens of prompt and answer; default: the model's")
    ] = None,
    block_size: Annotated[int | None, typer.Option(min=1, help="default: as trained")] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="default: PyTorch's choice")] = None,
) -> None:
    """Serve a checkpoint behind OpenAI's API, with tau per request. See docs/serving.md."""
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision is {precision!r}; give float32 or bfloat16.")
    from mars.serving.engine_process import Settings
    from mars.serving.server import serve as run

    settings = Settings(
        str(checkpoint),
        tau=read_tau(tau),
        low_tau=low_tau,
        slots=slots,
        max_length=max_length,
        block_size=block_size,
        precision=precision,
        threads=threads,
    )
    run(
        settings,
        host=host,
        port=port,
        name=name,
        api_key=api_key or None,
        max_waiting=max_waiting,
    )
