"""Manifests: one small file that stands for a folder of large ones.

Rules depend on `manifest.json` alone, so touching a weight file reruns nothing; the sha256 in it
lets the audit find a changed byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mars.files import read_json, sha256_file, write_json

NAME = "manifest.json"


def write_manifest(folder: Path, **about: Any) -> Path:
    """List every file below ``folder`` with its size and sha256; ``about`` adds plain facts."""
    files = {
        str(path.relative_to(folder)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    write_json(folder / NAME, {**about, "files": files})
    return folder / NAME


def verify_manifest(manifest: Path) -> list[str]:
    """One sentence per file that is missing or differs from the manifest; empty when all agree."""
    problems = []
    for name, expected in read_json(manifest)["files"].items():
        path = manifest.parent / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256_file(path) != expected["sha256"]:
            problems.append(f"{path} differs from its manifest")
    return problems
