"""Before a run: which packages are not those that its results will be judged by."""

from __future__ import annotations

import pytest

from mars.planning import differences
from mars.planning.differences import unlike_the_lock
from mars.provenance.lock import locked_for


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stands in for what is installed: at first, what is locked."""
    found = {**locked_for(["torch", "transformers", "lm_eval", "datasets"])}
    monkeypatch.setattr(
        differences,
        "versions",
        lambda packages: {name: found.get(name, pin) for name, pin in packages.items()},
    )
    return found


def test_what_is_installed_as_locked_is_not_mentioned(installed: dict[str, str]):
    assert unlike_the_lock() is None
    installed["torch"] += "+cu130"
    assert unlike_the_lock() is None


def test_another_version_is_named_beside_the_locked_one(installed: dict[str, str]):
    locked, installed["transformers"] = installed["transformers"], "5.17.0"
    assert str(unlike_the_lock()) == f"packages: transformers 5.17.0, the lock has {locked}"


def test_packages_that_stages_import_come_first(installed: dict[str, str]):
    installed["aiohttp"], installed["transformers"] = "0", "0"
    assert str(unlike_the_lock()).startswith("packages: transformers 0, ")
