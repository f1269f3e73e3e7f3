"""The version of the project: ``pyproject.toml`` says it, and what must repeat it follows.

``make version VERSION=0.2.0`` (``python tools/version.py 0.2.0``) writes it there, into
CITATION.cff and .zenodo.json, and makes the changelog's [Unreleased] the section of that version,
of today.
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import date
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
# Each file's line with the version; "{}" is where it stands.
LINES = {
    "pyproject.toml": 'version = "{}"',
    "CITATION.cff": "version: {}",
    ".zenodo.json": '  "version": "{}",',
}
UNRELEASED = "## [Unreleased]\n"


def version_of(root: Path) -> str:
    """What pyproject.toml says."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def problems(root: Path, tag: str | None = None) -> list[str]:
    """What does not name the version of pyproject.toml, in sentences; CHANGELOG.md with a tag only.

    Args:
        tag: of the release.
    """
    version = version_of(root)
    found = [
        f"{name} has no line {line.format(version)!r}"
        for name, line in LINES.items()
        if line.format(version) not in (root / name).read_text().splitlines()
    ]
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml says {version}")
    if tag is not None and not notes(root, version):
        found.append(f"CHANGELOG.md has no section [{version}], or an empty one")
    return found


def notes(root: Path, version: str) -> str:
    """The changelog's section of a version, without its title; empty if there is none."""
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(rf"(?ms)^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", text)
    return found[1].strip() + "\n" if found and found[1].strip() else ""


def write(root: Path, version: str) -> None:
    """Make ``version`` the version of the project in ``root``.

    Raises:
        SystemExit: it is no version, or not above the present one, or a file has no place for it.
    """
    before = version_of(root)
    try:
        if Version(version) <= Version(before):
            sys.exit(f"{version} is not above the present version, {before}.")
    except InvalidVersion:
        sys.exit(f"{version!r} is no version; say VERSION=0.2.0, for one.")
    if found := problems(root):
        sys.exit("\n".join(found))
    for name, line in LINES.items():
        _replace(root / name, f"{line.format(before)}\n", f"{line.format(version)}\n")
    title = f"{UNRELEASED}\n## [{version}] - {date.today()}\n"
    _replace(root / "CHANGELOG.md", UNRELEASED, title)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    if text.count(old) != 1:
        sys.exit(f"{file} has {old.strip()!r} {text.count(old)} times, not once.")
    file.write_text(text.replace(old, new))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("say which: make version VERSION=0.2.0")
    write(ROOT, sys.argv[1])
