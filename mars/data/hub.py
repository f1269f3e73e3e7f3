"""Data sets and models from the hub, or from a mirror folder in hub layout, into a local folder.

After a fetch nothing needs the network: every later stage reads the local folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from datasets import Dataset, load_dataset

from mars.errors import UserError
from mars.provenance.files import read_json

MIRROR_VARIABLE = "MARS_HUB_MIRROR"
FETCHED = "fetched.json"
"""In a mirror that `mars fetch` filled: the commit and the files of each repository."""

# Code is never run and other formats of the same weights are never read.
UNWANTED = ("*.py", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", ".git*")


def fetch(
    repository: str, kind: Literal["dataset", "model"], revision: str | None, output: Path
) -> dict[str, str | None]:
    """Copy one repository (``owner/name``) into ``output``; returns where it came from.

    With ``MARS_HUB_MIRROR`` set the source is ``$MARS_HUB_MIRROR/<owner>/<name>``, a folder laid
    out like a snapshot of the repository; otherwise it is the hub, at ``revision``.

    Returns:
        ``{"repository", "source": "mirror" | "hub", "revision": commit or None}``

    Raises:
        UserError: the mirror lacks the repository, or the hub refused or could not be reached.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    partial = output.parent / f".{output.name}.partial"
    if mirror:
        folder = Path(mirror) / repository
        if not folder.is_dir():
            raise UserError(
                f"the mirror {mirror} has no {repository}; run `mars fetch`, put a snapshot of "
                f"the {kind} into {folder}, or unset {MIRROR_VARIABLE} to use the hub."
            )
        commit = mirrored_commit(Path(mirror), repository, revision)
        shutil.copytree(folder, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)
    else:
        commit = _download(repository, kind, revision, partial)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(partial, output)
    return {
        "repository": repository,
        "source": "mirror" if mirror else "hub",
        "revision": commit,
    }


def mirrored_commit(mirror: Path, repository: str, revision: str | None) -> str | None:
    """The commit at which a mirror holds a repository, or ``revision`` if it keeps no record.

    Raises:
        UserError: `mars fetch` has not finished the repository, or fetched another commit.
    """
    record = mirror / FETCHED
    entry = read_json(record).get(repository) if record.is_file() else None
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


def hub_root(manifest: Path) -> Path:
    """The hub folder (``<root>/<owner>/<name>``) that a data manifest belongs to.

    A fetched data set has a manifest of its own, which names its repository; generated data has
    one manifest at the root.
    """
    owned = "repository" in read_json(manifest)
    return manifest.parent.parent.parent if owned else manifest.parent


def read_dataset(folder: Path, configuration: str | None, split: str) -> Dataset:
    """One split of a data set folder in hub layout, read anew.

    ``datasets`` keys its cache by the folder's name and not by its path, so that it would return
    another folder's rows; a cache of its own, removed at exit, keeps every reading apart.
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


def _download(repository: str, kind: str, revision: str | None, folder: Path) -> str:
    """Snapshot of a hub repository; the commit that it was."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision).sha
        snapshot_download(
            repository,
            repo_type=kind,
            revision=commit,
            local_dir=folder,
            ignore_patterns=list(UNWANTED),
        )
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is gated: accept its terms on {page} and log in with `hf auth login`."
        ) from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{repository} could not be downloaded ({reason}); check the connection, or set "
            f"{MIRROR_VARIABLE} to a folder in hub layout that holds it."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return str(commit)
