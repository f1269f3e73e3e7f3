"""The locked versions that a stage depends on: of the packages its code uses, and of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mars.provenance.files import sha256_text
from mars.provenance.fingerprint import project

# Packages that are not imported under their own name (a test compares with what is installed).
DISTRIBUTIONS = {"yaml": "pyyaml"}


def locked_for(imported: Iterable[str]) -> dict[str, str]:
    """The locked version of each package behind these imports, and of all that those ask for.

    Args:
        imported: names as in ``import``, or of packages; what is not in the lock is passed over,
            such as the standard library.

    Returns:
        Versions by package; none without a lock.
    """
    versions, asks_for = _read(project() / "requirements.lock")
    waiting = [DISTRIBUTIONS.get(name, name.lower().replace("_", "-")) for name in imported]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in versions and name not in found:
            found[name] = versions[name]
            waiting += asks_for.get(name, ())
    return dict(sorted(found.items()))


def packages_hash(versions: dict[str, str]) -> str:
    """What stands for these versions in a spec."""
    return sha256_text("\n".join(f"{name}=={pin}" for name, pin in sorted(versions.items())))


def forget() -> None:
    """Drop what was read of the lock, after an edit within one process."""
    _read.cache_clear()


@cache
def _read(lock: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Versions by package, and what each package asks for (the lock says it the other way)."""
    versions: dict[str, str] = {}
    asks_for: dict[str, list[str]] = {}
    name = ""
    for line in lock.read_text().splitlines() if lock.is_file() else ():
        if "==" in line:
            name, _, version = line.partition("==")
            versions[name] = version
        elif line.startswith("    # via "):
            for parent in line.removeprefix("    # via ").split(", "):
                asks_for.setdefault(parent, []).append(name)
    return versions, asks_for
