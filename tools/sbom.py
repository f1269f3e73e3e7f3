"""The bill of materials of a version: the packages of requirements.lock as CycloneDX 1.6.

``python tools/sbom.py`` prints it for the working folder. The lock is all that is read, so the same
lock gives the same text; it also knows who asks for a package, which installed packages or a plain
requirements file would not say. Not in the lock, hence not here: the CUDA packages, which torch
pins itself, and licences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lock import PROJECT, ROOT, Locked, parse_lock
from version import version_of

# What CycloneDX calls a section of the lock; "excluded" is what only tests and tools need.
SCOPES = {"run": "required", "smollm2": "optional", "dev": "excluded"}


def bill_of_materials(root: Path) -> str:
    """The text of the bill, for the project in ``root``."""
    sections = parse_lock((root / "requirements.lock").read_text())
    packages = {name: locked for section in sections.values() for name, locked in section.items()}
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "application",
                "bom-ref": PROJECT,
                "name": PROJECT,
                "version": version_of(root),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [
            _component(name, locked.version, SCOPES[section])
            for section, versions in sections.items()
            for name, locked in versions.items()
        ],
        "dependencies": _dependencies(packages),
    }
    return json.dumps(bill, indent=1) + "\n"


def _component(name: str, version: str, scope: str) -> dict[str, str]:
    purl = _purl(name, version)
    found = {"bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": scope}
    return {"type": "library", **found}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _dependencies(packages: dict[str, Locked]) -> list[dict[str, Any]]:
    """What the project and each package ask for; the lock says it the other way."""
    asks_for: dict[str, list[str]] = {PROJECT: [], **{name: [] for name in packages}}
    refs = {name: _purl(name, locked.version) for name, locked in packages.items()}
    for name, locked in packages.items():
        for parent in locked.via:
            asks_for[parent].append(refs[name])
    return [
        {"ref": refs.get(name, name), "dependsOn": sorted(asked)}
        for name, asked in asks_for.items()
    ]


if __name__ == "__main__":
    print(bill_of_materials(ROOT), end="")
