"""Filling a mirror: all repositories of an experiment in one folder, each file checked.

A mirror holds ``<owner>/<name>/...`` and the record ``fetched.json``: the commit of each
repository, and size and sha256 of each of its files. A repository is complete, and can be used,
once all its files have the hash that the hub states. After a kill, the next fetch continues with
the files that are missing.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Literal

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mars.config.experiment import Experiment, HubBase, HubData
from mars.data.hub import FETCHED, MIRROR_VARIABLE, UNWANTED, fetched
from mars.errors import UserError
from mars.provenance.files import readable_size, sha256_file, write_json

ATTEMPTS = 4  # on top of those that the hub library makes for each request
FIRST_WAIT = 1.0  # seconds; doubled after every failed attempt
SPLITTER = "punkt_tab"


@dataclass(frozen=True)
class Wanted:
    """A repository that an experiment needs, perhaps only for a ``benchmark``.

    ``revision`` is a commit, tag or branch; None for the newest.
    """

    repository: str
    kind: Literal["dataset", "model"]
    revision: str | None = None
    benchmark: str | None = None


def wanted_by(experiment: Experiment) -> list[Wanted]:
    """The models and data sets of the hub that an experiment uses."""
    wanted: list[Wanted] = []
    for entry in experiment.models.values():
        base = experiment.scales[entry.scale].base
        model = entry.released if entry.source == "released" else None
        if entry.method == "base" and isinstance(base, HubBase):
            wanted.append(Wanted(base.repository, "model", base.revision))
        elif model is not None:
            wanted.append(Wanted(model.repository, "model", model.revision))
    if isinstance(data := experiment.data, HubData):
        wanted += [
            Wanted(benchmark.dataset, "dataset", benchmark.revision, name)
            for name, benchmark in experiment.benchmarks.items()
        ]
        if experiment.trained_models():
            wanted.append(Wanted(data.dataset, "dataset", data.revision))
    first: dict[str, Wanted] = {}
    for item in wanted:
        first.setdefault(item.repository, item)
    return list(first.values())


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; ``digest`` is its sha256, or Git's blob hash if it is small."""

    path: str
    size: int
    digest: str

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` holds exactly this file."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            return sha256_file(path) == self.digest
        blob = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest() == self.digest


class NotAvailableError(Exception):
    """One repository cannot be had; the others can."""


def fill(mirror: Path, wanted: Iterable[Wanted]) -> list[str]:
    """Fetch what is missing; returns one sentence for each repository that cannot be had.

    Files that are there are hashed, and fetched again if record or hub disagree. A repository
    whose record is complete stays at its commit, and the hub is not asked about it. A folder
    that no fetch made is the user's own and is left as it is.

    Raises:
        UserError: the hub cannot be reached, the disk is too small, or another fetch is running.
    """
    problems: list[str] = []
    absent: dict[Wanted, list[RemoteFile]] = {}
    with _alone(mirror):
        record = fetched(mirror)
        for item in wanted:
            folder = mirror / item.repository
            if item.repository not in record and folder.is_dir():
                print(f"{item.repository}: your own folder, left as it is")
                continue
            try:
                files = _listing(mirror, record, item)
            except NotAvailableError as error:
                problems.append(str(error))
                continue
            if folder.is_dir():
                print(f"{item.repository}: checking the files that are there")
                shutil.rmtree(folder / ".cache", ignore_errors=True)
            absent[item] = [file for file in files if not file.is_at(folder / file.path)]
            size = readable_size(sum(file.size for file in absent[item]))
            print(f"{item.repository}: {len(absent[item])} of {len(files)} files to fetch, {size}")
        missing = sum(file.size for files in absent.values() for file in files)
        if missing > (free := shutil.disk_usage(mirror).free):
            raise UserError(
                f"{readable_size(missing)} are still to be fetched and {mirror} has "
                f"{readable_size(free)} free; free some space or choose another folder."
            )
        for item, files in absent.items():
            try:
                _download(mirror, record, item, files)
            except NotAvailableError as error:
                problems.append(str(error))
    return problems


def _listing(mirror: Path, record: dict[str, Any], item: Wanted) -> list[RemoteFile]:
    """The files of a repository that are wanted, from the record or the hub.

    The commit is written down before the first file, so that a later fetch takes the same one.
    """
    old = record.get(item.repository, {"files": {}, "complete": False})
    same = "revision" in old and item.revision in (None, old["asked"], old["revision"])
    if same and old["complete"]:
        return [RemoteFile(path, f["bytes"], f["sha256"]) for path, f in old["files"].items()]
    revision = old["revision"] if same else item.revision
    options: dict[str, Any] = {"repo_type": item.kind, "revision": revision, "files_metadata": True}
    info = _patiently(item, lambda: HfApi().repo_info(item.repository, **options))
    files = [
        RemoteFile(f.rfilename, f.size, f.lfs.sha256 if f.lfs else f.blob_id)
        for f in info.siblings or []
        if not any(fnmatch.fnmatch(f.rfilename, pattern) for pattern in UNWANTED)
    ]
    if item.kind == "model" and not any(file.path.endswith(".safetensors") for file in files):
        raise NotAvailableError(f"{item.repository} has no .safetensors file; no other is read.")
    for path in set(old["files"]) - {file.path for file in files}:
        (mirror / item.repository / path).unlink(missing_ok=True)  # of another commit
    record[item.repository] = {
        "kind": item.kind,
        "asked": item.revision,
        "revision": str(info.sha),
        "complete": False,
        "files": {file.path: {"bytes": file.size} for file in files},
    }
    write_json(mirror / FETCHED, record)
    return files


def _download(mirror: Path, record: dict[str, Any], item: Wanted, files: list[RemoteFile]) -> None:
    """Fetch the files that a repository lacks, after which it can be used."""
    folder, entry = mirror / item.repository, record[item.repository]

    def attempt() -> None:
        absent = [file for file in files if not file.is_at(folder / file.path)]
        for file in absent:
            (folder / file.path).unlink(missing_ok=True)
        if absent:
            snapshot_download(
                item.repository,
                repo_type=item.kind,
                revision=entry["revision"],
                local_dir=folder,
                allow_patterns=[escape(file.path) for file in absent],
            )
        if wrong := [file.path for file in absent if not file.is_at(folder / file.path)]:
            raise OSError(f"{wrong[0]} did not arrive with the hash that the hub states")

    _patiently(item, attempt)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub library's own notes
    if not entry["complete"]:
        for path, known in entry["files"].items():
            known["sha256"] = sha256_file(folder / path)
        entry["complete"] = True
        write_json(mirror / FETCHED, record)


def _patiently(item: Wanted, action: Callable[[], Any]) -> Any:
    """Retry what may pass by itself; anything else becomes one sentence.

    Raises:
        NotAvailableError: this repository cannot be had.
        UserError: nothing can be had now.
    """
    name, overlay = item.repository, f"`benchmarks: {{{item.benchmark}: null}}`"
    without = f"; or do without it, its cells saying 'not run', with the overlay {overlay}"
    otherwise = without if item.benchmark else ""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except GatedRepoError:
            page = f"{constants.ENDPOINT}/{'datasets/' * (item.kind == 'dataset')}{name}"
            raise NotAvailableError(
                f"{name} is gated: open {page}, click 'Agree and access repository', log in with "
                f"`hf auth login` and try again{otherwise}."
            ) from None
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise NotAvailableError(
                f"{name} at {item.revision or 'its newest commit'} is not on the hub, or you may "
                f"not see it: correct the name, or log in with `hf auth login`{otherwise}."
            ) from None
        except (HTTPError, OSError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else 500
            final = status < 500 and status not in (408, 429)
            if final or attempt == ATTEMPTS - 1 or isinstance(error, OfflineModeIsEnabled):
                cause = error.__cause__ or error
                reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
                raise UserError(
                    f"{name} could not be fetched ({reason}); check the connection and try again "
                    f"(it resumes where it stopped), or set {MIRROR_VARIABLE} to a mirror with it."
                ) from None
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError("unreachable")


def fetch_splitter(mirror: Path) -> str | None:
    """Fetch NLTK's sentence splitter, which IFEval needs, into ``mirror/nltk_data``.

    Returns:
        None, or one sentence that says what follows if it cannot be had.
    """
    import nltk

    folder = mirror / "nltk_data"
    there = (folder / "tokenizers" / SPLITTER / "english").is_dir()
    if there or nltk.download(SPLITTER, download_dir=str(folder), quiet=True):  # checks the hash
        return None
    return (
        f"NLTK's {SPLITTER} could not be fetched: IFEval will split sentences with an untrained "
        "model and its records will say so; run `mars fetch` again, or go on."
    )


@contextmanager
def _alone(mirror: Path) -> Iterator[None]:
    """No two fetches write to the same mirror; the lock ends with the process."""
    mirror.mkdir(parents=True, exist_ok=True)
    with open(mirror / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another `mars fetch` is filling {mirror}; wait for it.") from None
        yield
