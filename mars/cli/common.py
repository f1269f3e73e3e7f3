"""What the verbs share: the application, and options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mars.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MARS-repro: train, decode, evaluate and compare with arXiv 2604.07023.",
)

Configs = Annotated[list[Path], typer.Option(help="the experiment, then overlays")]
Root = Annotated[Path, typer.Option(help="folder in which the workflow ran")]
TINY = [Path("config/tiny.yaml")]


def read_tau(text: str) -> float | None:
    """A threshold as it is given on the command line; ``none`` is one-token mode.

    Raises:
        UserError: neither a number nor ``none``.
    """
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--tau is {text!r}; give a number from 0 to 1, or 'none'.") from error
