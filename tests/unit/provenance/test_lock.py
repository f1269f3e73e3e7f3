"""A stage depends on the locked versions of what its code uses, and on nothing else."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mars.provenance import lock
from mars.provenance.fingerprint import PACKAGE
from mars.provenance.lock import DISTRIBUTIONS, locked_for, packages_hash

TEXT = """\
# run: what `make reproduce` installs
lm-eval==1.0
    # via mars-repro
numpy==2.0
    # via lm-eval, torch
pyyaml==6.0
    # via lm-eval
torch==3.0
    # via mars-repro
"""


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "requirements.lock"
    file.write_text(TEXT)
    monkeypatch.setattr(lock, "project", lambda: tmp_path)
    lock.forget()
    return file


def test_a_package_brings_what_it_asks_for(lock_file: Path):
    assert locked_for(["torch", "os"]) == {"numpy": "2.0", "torch": "3.0"}
    assert locked_for(["lm_eval"]) == {"lm-eval": "1.0", "numpy": "2.0", "pyyaml": "6.0"}
    assert locked_for(["yaml"]) == {"pyyaml": "6.0"}
    assert locked_for([]) == {}


def test_only_versions_that_are_used_change_the_hash(lock_file: Path):
    def hashes() -> list[str]:
        lock.forget()
        return [packages_hash(locked_for([name])) for name in ("torch", "lm_eval")]

    torch, evaluation = hashes()
    lock_file.write_text(TEXT.replace("lm-eval==1.0", "lm-eval==1.1"))
    assert hashes()[0] == torch
    assert hashes()[1] != evaluation
    lock_file.write_text(TEXT.replace("numpy==2.0", "numpy==2.1"))
    assert hashes()[0] != torch


def test_every_import_of_the_package_is_found_in_the_lock():
    """An import under another name than its package's stands in DISTRIBUTIONS."""
    installed = metadata.packages_distributions()
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").split(".")[0])
    # The extra `serve`, which no stage needs; an environment of its own, as VllmSpec says.
    elsewhere = {"prometheus_client", "starlette", "uvicorn", "vllm"}
    foreign = imported - set(sys.stdlib_module_names) - {PACKAGE.name} - elsewhere
    assert len(foreign) > 20
    for name in foreign:
        wanted = {one.lower().replace("_", "-") for one in installed[name]}
        assert DISTRIBUTIONS.get(name, name.lower().replace("_", "-")) in wanted
        assert locked_for([name]), f"requirements.lock has no {name}"
