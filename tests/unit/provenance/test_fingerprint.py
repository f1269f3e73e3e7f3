"""A fingerprint changes when a stage's behaviour may, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.provenance import fingerprint


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A little package `mars`: a -> b (relative) -> c; d stands alone; data beside c."""
    root = tmp_path / "mars"
    files = {
        "__init__.py": "",
        "a.py": '"""Doc."""\nfrom mars.sub import b\n\ndef f():\n    return b.g()\n',
        "sub/__init__.py": "",
        "sub/b.py": "def g():\n    from .c import h\n    return h()\n",
        "sub/c.py": "def h():\n    return 1\n",
        "sub/table.csv": "x\n1\n",
        "d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mars.sub import c\n",
        "config.py": "VALUE = 1\n",
        "e.py": "import mars.config.experiment\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", root)
    return root


def _of(*modules: str) -> str:
    for cached in (fingerprint._tree, fingerprint._imports, fingerprint._code_hash):
        cached.cache_clear()
    return fingerprint.code_fingerprint(modules)


@pytest.fixture(autouse=True)
def _fresh_caches():
    yield
    for cached in (fingerprint._tree, fingerprint._imports, fingerprint._code_hash):
        cached.cache_clear()


def test_the_closure_follows_imports_wherever_they_stand(package: Path):
    _of("mars.a")
    reached = fingerprint.import_closure(["mars.a"])
    assert reached == {"mars", "mars.a", "mars.sub", "mars.sub.b", "mars.sub.c"}
    assert fingerprint.import_closure(["mars.d"]) == {"mars", "mars.d"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("a.py", "Doc.", "Other words.", False),
        ("sub/c.py", "return 1", "return 1  # a comment", False),
        ("sub/c.py", "def h():\n", "def h():\n    '''Says what.'''\n", False),
        ("sub/c.py", "return 1", "return 2", True),
        ("sub/b.py", "return h()", "return -h()", True),
        ("sub/table.csv", "1", "2", True),
        ("d.py", "if", "x = 1\nif", False),
        ("config.py", "1", "2", False),
    ],
)
def test_only_behaviour_changes_it(package: Path, file: str, old: str, new: str, changes: bool):
    before = _of("mars.a", "mars.e")
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))
    assert (_of("mars.a", "mars.e") != before) is changes


def test_an_unknown_module_is_an_error(package: Path):
    with pytest.raises(ModuleNotFoundError):
        _of("mars.nothing")
