"""Manifests: one small file that stands for a folder of large ones.

Rules depend on `manifest.json` alone, so touching a weight file reruns nothing; the sha256 in it
lets the audit find a changed byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mars.provenance.files import read_json, sha256_file, write_json

NAME = "manifest.json"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of ``path`` when the block ends without an error.

    Nothing of an older folder stays, and none of its files is written to: they may be links into
    DVC's cache.
    """
    partial = path.parent / f".{path.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)


def write_manifest(folder: Path, **about: Any) -> Path:
    """List every file below ``folder`` with its size and sha256; ``about`` adds plain facts."""
    files = {
        str(path.relative_to(folder)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    write_json(folder / NAME, {**about, "files": files})
    return folder / NAME


def listed_files(manifest: Path) -> dict[Path, str]:
    """The sha256 of each file that a manifest lists, by path."""
    entries = read_json(manifest)["files"].items()
    return {manifest.parent / name: entry["sha256"] for name, entry in entries}


def size_with_manifest(path: Path) -> int:
    """Bytes of a file and, if it is a manifest, of all that it lists."""
    listed = read_json(path)["files"].values() if path.name == NAME else []
    return path.stat().st_size + sum(entry["bytes"] for entry in listed)


def verify_manifest(manifest: Path) -> list[str]:
    """One sentence per file that is missing or differs from the manifest; empty when all agree."""
    problems = []
    for path, expected in listed_files(manifest).items():
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256_file(path) != expected:
            problems.append(f"{path} differs from its manifest")
    return problems
