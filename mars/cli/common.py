"""What the verbs share: the application, and options that mean the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mars.errors import UserError
from mars.provenance.manifest import new_folder, write_manifest
from mars.provenance.record import recorded

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MARS-repro: train, decode, evaluate and compare with arXiv 2604.07023.",
)

Configs = Annotated[list[Path], typer.Option(help="the experiment, then overlays")]
Spec = Annotated[str, typer.Option(help="the stage's spec: JSON, or a file that holds it")]
Record = Annotated[Path, typer.Option(help="where to write the provenance record")]
Folder = Annotated[Path, typer.Option()]
DataManifest = Annotated[Path, typer.Option(help="manifest of the fetched or generated data")]


@contextmanager
def made_folder(
    record: Path, spec: dict[str, Any], inputs: Sequence[Path], output: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to fill, and facts about it, empty at first.

    When the block ends without an error the folder is at ``output``, with the facts in its manifest
    and in the record; else nothing is there.
    """
    with (
        recorded(record, spec, inputs, [output / "manifest.json"]) as facts,
        new_folder(output) as folder,
    ):
        yield folder, facts
        write_manifest(folder, **facts)


def read_spec(spec: str, *stages: str) -> dict[str, Any]:
    """The spec given on the command line, checked to be one of ``stages``.

    Raises:
        UserError: no such file, not JSON, or the spec of another stage.
    """
    text = spec if spec.lstrip().startswith("{") else _text_of(spec)
    try:
        plan = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--spec is not JSON ({error}); take it from `mars spec`.") from error
    if plan.get("stage") not in stages:
        runs = ", ".join(map(repr, stages))
        raise UserError(f"--spec is of the stage {plan.get('stage')!r}; this verb runs {runs}.")
    return plan


def _text_of(path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"--spec names the file {path}, which does not exist; see `mars spec`.")
    return Path(path).read_text()


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
