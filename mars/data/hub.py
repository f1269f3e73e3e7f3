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
from mars.files import read_json

MIRROR_VARIABLE = "MARS_HUB_MIRROR"


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
                f"the mirror {mirror} has no {repository}; put a snapshot of the {kind} into "
                f"{folder}, or unset {MIRROR_VARIABLE} to use the hub."
            )
        shutil.copytree(folder, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)
        commit = revision
    else:
        commit = _download(repository, kind, revision, partial)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(partial, output)
    return {
        "repository": repository,
        "source": "mirror" if mirror else "hub",
        "revision": commit,
    }


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
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision).sha
        snapshot_download(repository, repo_type=kind, revision=commit, local_dir=folder)
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is gated: accept its terms on {page} and log in with `hf auth login`."
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{repository} could not be downloaded ({reason}); check the connection, or set "
            f"{MIRROR_VARIABLE} to a folder in hub layout that holds it."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return str(commit)
