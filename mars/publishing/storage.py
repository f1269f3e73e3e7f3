"""The large folders of an experiment, brought to DVC's storage and back.

``.dvc/config`` names a folder beside the repository, which every clone beside it shares. For any
other place, ``DVC_REMOTE`` is noted in ``.dvc/config.local``: DVC has no variable of its own for
it, and reads that file whatever command is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mars.errors import UserError
from mars.publishing.ledger import dvc, is_kept, stages
from mars.publishing.snakemake_metadata import restore_dates

REMOTE = "storage"  # as .dvc/config has it
VARIABLE = "DVC_REMOTE"


def push(results: Path) -> str:
    """Bring what DVC keeps of an experiment to the storage; what was done, in a sentence.

    Raises:
        UserError: DVC keeps nothing of it, or it is not here, or cannot be brought there.
    """
    place = _place(results)
    with _meaning(f"{results} cannot be brought to {place}"):
        dvc("push", *stages(results))
        # What is in no cache is passed over with a warning.
        status = json.loads(dvc("data", "status", "--not-in-remote", "--json"))
    lacking = [name for name in status.get("not_in_remote", ()) if name.startswith(f"{results}/")]
    if lacking:
        raise UserError(
            f"{lacking[0]}, as dvc.lock has it, is neither in {place} nor here; push from where "
            "the experiment ran, after the `make reproduce` there."
        )
    return f"{results} is in {place}."


def pull(results: Path) -> str:
    """Bring it back as ``dvc.lock`` has it; what was done, in a sentence.

    Raises:
        UserError: DVC keeps nothing of it, or the storage does not have it.
    """
    place = _place(results)
    if "://" not in place and not Path(place).is_dir():
        raise UserError(
            f"{place} is not there, so nothing can be pulled from it: say `make push "
            f"EXPERIMENT={results.name}` where the experiment ran, or set {VARIABLE} to the place "
            "it was pushed to."
        )
    with _meaning(f"{place} did not give back all of {results}"):
        dvc("pull", *stages(results))
    restore_dates(results)
    return f"{results} is here as {place} had it."


def _place(results: Path) -> str:
    """The URL or the folder of the storage, after ``DVC_REMOTE`` was noted."""
    from dvc.config import Config

    if not is_kept(results):
        raise UserError(
            f"DVC keeps nothing of {results}: the first lines of dvc.yaml name what it keeps."
        )
    if url := os.environ.get(VARIABLE):
        with _meaning(f"{VARIABLE} cannot be noted"):
            dvc("remote", "modify", "--local", REMOTE, "url", url)
    config = Config.from_cwd()
    return str(config["remote"][config["core"]["remote"]]["url"])


@contextmanager
def _meaning(sentence: str) -> Iterator[None]:
    """Say what it means where DVC fails."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{sentence}; DVC says: {error}") from error
