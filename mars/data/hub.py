"""Data sets and models from the hub, or from a mirror folder in hub layout, into a local folder.

After a fetch nothing needs the network: every later stage reads the local folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, load_dataset

from mars.errors import UserError
from mars.provenance.files import read_json
from mars.provenance.manifest import new_folder

MIRROR_VARIABLE = "MARS_HUB_MIRROR"
FETCHED = "fetched.json"
"""In a mirror that `mars fetch` filled: the commit and the files of each repository."""

# Code is never run, and other formats of the same weights are never read.
UNWANTED = ("*.py", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", ".git*")


def fetch(
    repository: str, kind: Literal["dataset", "model"], revision: str | None, output: Path
) -> dict[str, str | None]:
    """Copy one repository (``owner/name``) into ``output``.

    With ``MARS_HUB_MIRROR`` set the source is ``$MARS_HUB_MIRROR/<owner>/<name>``, a folder laid
    out like a snapshot of the repository; otherwise a mirror of it alone, filled from the hub.
    Returns ``{"repository", "source": "mirror" | "hub", "revision": commit or None}``.

    Raises:
        UserError: the mirror lacks the repository, or the hub refused or could not be reached.
    """
    from mars.data.mirror import Wanted, fill

    given = os.environ.get(MIRROR_VARIABLE)
    mirror = Path(given) if given else output.parent / f".{output.name}.mirror"
    if not given and (problems := fill(mirror, [Wanted(repository, kind, revision)])):
        raise UserError(problems[0])
    folder = mirror / repository
    if not folder.is_dir():
        raise UserError(
            f"the mirror {mirror} has no {repository}; run `mars fetch`, put a snapshot of "
            f"the {kind} into {folder}, or unset {MIRROR_VARIABLE} to use the hub."
        )
    commit = mirrored_commit(mirror, repository, revision)
    with new_folder(output) as partial:
        copy = shutil.copyfile if given else os.replace
        shutil.copytree(folder, partial, dirs_exist_ok=True, copy_function=copy)
    if not given:
        shutil.rmtree(mirror)
    return {"repository": repository, "source": "mirror" if given else "hub", "revision": commit}


def fetched(mirror: Path) -> dict[str, Any]:
    """What `mars fetch` recorded about each repository; empty if it did not fill this mirror."""
    return read_json(mirror / FETCHED) if (mirror / FETCHED).is_file() else {}


def mirrored_commit(mirror: Path, repository: str, revision: str | None) -> str | None:
    """The commit at which a mirror holds a repository, or ``revision`` if it keeps no record.

    Raises:
        UserError: `mars fetch` has not finished the repository, or fetched another commit.
    """
    entry = fetched(mirror).get(repository)
    if entry is None:
        return revision
    if not entry["complete"]:
        raise UserError(f"{repository} is not complete in {mirror}; run `mars fetch` again.")
    if revision not in (None, entry["revision"], entry["asked"]):
        raise UserError(
            f"{mirror} holds {repository} at {entry['revision']} and the experiment wants "
            f"{revision}; run `mars fetch` again."
        )
    return entry["revision"]


def read_dataset(folder: Path, configuration: str | None, split: str) -> Dataset:
    """One split of a data set folder in hub layout, read anew.

    ``datasets`` keys its cache by the folder's name, not its path, and might return the rows of
    another folder; so each reading has a cache of its own, which is removed at exit.
    """
    cache = tempfile.mkdtemp(prefix="mars-datasets-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    try:
        return load_dataset(str(folder), configuration, split=split, cache_dir=cache)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(
            f"{folder} could not be read as a data set ({str(error).splitlines()[0]}); "
            "check `configuration` and `split`, or fetch it again."
        ) from error
