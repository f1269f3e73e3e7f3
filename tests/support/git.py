"""Repositories for tests; what makes one is skipped where there is no git."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

WHO = ("-c", "user.name=test", "-c", "user.email=test@localhost")


def need_git() -> None:
    if not shutil.which("git"):
        pytest.skip("needs git")


def git(folder: Path, *words: str) -> str:
    """Run git as a user of its own, and return what it said."""
    need_git()
    command = ["git", *WHO, *words]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()
