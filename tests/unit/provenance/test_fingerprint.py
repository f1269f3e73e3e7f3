"""A fingerprint changes when a stage's behaviour may, and only then."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mars.provenance import fingerprint
from mars.provenance.fingerprint import Reached

FILES = {
    "__init__.py": "",
    "a.py": '''"""Doc."""
from __future__ import annotations
import numpy as np
import pandas
from mars.sub import b
from mars.sub.b import CONSTANT as SIZE
from mars.config import Setting
from mars.errors import UserError

class Spec:
    setting: Setting
    size: int = 1

def f(spec: Spec):
    if SIZE > 9:
        raise UserError("too large")
    print("working")
    return np.abs(b.g())

def other():
    return pandas.NA
''',
    "sub/__init__.py": "",
    "sub/b.py": """CONSTANT = 3
def g():
    from .c import h
    return h()
def unused():
    return 1
""",
    "sub/c.py": """from pathlib import Path
import registry
ROOT = Path(__file__).parent
def h(x: int = 1) -> int:
    return len(list(ROOT.iterdir())) + Table().size
class Table:
    size = 2
registry.register("h", h)
""",
    "sub/table.csv": "x\n1\n",
    "d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mars.sub import c\n",
    "errors.py": "class UserError(Exception):\n    pass\n",
    "config.py": """class Setting:
    tau: float = 1
    @field_validator("tau")
    def check(cls, tau):
        return tau
    @property
    def plain(self):
        return self.tau == 1
""",
}


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A little package `mars`: a -> b -> c by imports of all kinds; d stands alone."""
    root = tmp_path / "mars"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    yield root
    fingerprint.forget()


def reached(package: Path, name: str = "f", spec: str | None = "Spec") -> Reached:
    fingerprint.forget()
    return fingerprint._code_of(package, ("mars.a", name), spec and ("mars.a", spec))


def test_names_are_followed_wherever_they_lead(package: Path):
    assert set(reached(package).modules) == {
        *("mars.a", "mars.sub.b", "mars.sub.c", "mars.config"),
    }
    # What only `f` imports is not run for `other`.
    assert set(reached(package, "other", None).modules) == {"mars.a"}


def test_packages_are_those_that_reached_code_uses(package: Path):
    assert {"numpy", "registry"} <= reached(package).packages
    assert "pandas" not in reached(package).packages
    assert "pandas" in reached(package, "other").packages


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("a.py", "Doc.", "Other words.", False),
        ("a.py", "too large", "is too large; ask for less", False),
        ("a.py", '"working"', '"at work"', False),
        ("a.py", "SIZE > 9", "SIZE > 8", True),
        ("a.py", "pandas.NA", "pandas.NaT", False),
        ("a.py", "size: int = 1", "size: int = 2", False),
        ("sub/c.py", "return len", "return 1 + len  # a comment", True),
        ("sub/c.py", "def h(", "# a comment\ndef h(", False),
        ("sub/c.py", "    return len", "    '''Says what.'''\n    return len", False),
        ("sub/c.py", "-> int", "-> float", False),
        ("sub/c.py", "x: int = 1", "x: int = 2", True),
        ("sub/c.py", "size = 2", "size = 3", True),
        ("sub/c.py", '"h", h', '"g", h', True),
        ("sub/c.py", "class Table", "def helper():\n    return 1\nclass Table", False),
        ("sub/b.py", "return h()", "return -h()", True),
        ("sub/b.py", "CONSTANT = 3", "CONSTANT = 4", True),
        ("sub/b.py", "    return 1", "    return 2", False),
        ("sub/table.csv", "1", "2", True),
        ("d.py", "if", "x = 1\nif", False),
        ("config.py", "tau: float = 1", "tau: float = 2\n    more: int = 3", False),
        ("config.py", "return tau\n", "return -tau\n", False),
        ("config.py", "self.tau == 1", "self.tau == 2", True),
    ],
)
def test_only_behaviour_changes_it(package: Path, file: str, old: str, new: str, changes: bool):
    before = reached(package).fingerprint
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))
    assert (reached(package).fingerprint != before) is changes


def test_a_module_that_is_handed_on_counts_whole(package: Path):
    path = package / "a.py"
    path.write_text(path.read_text().replace("b.g()", "call(b)"))
    before = reached(package).fingerprint
    (package / "sub/b.py").write_text(FILES["sub/b.py"].replace("return 1", "return 2"))
    assert reached(package).fingerprint != before


def test_an_unknown_module_is_an_error(package: Path):
    with pytest.raises(ModuleNotFoundError):
        fingerprint._code_of(package, ("mars.nothing", "f"), None)


FORBIDDEN = {"globals", "locals", "__import__", "import_module"}


def test_no_name_is_computed_in_the_package():
    """What the fingerprint cannot follow is not there: computed names, annotations that run."""
    for path in fingerprint.PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        called = {
            getattr(node.func, "attr", getattr(node.func, "id", ""))
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
        }
        assert not called & FORBIDDEN, path
        annotated = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.returns]
        lazy = "from __future__ import annotations" in path.read_text()
        assert lazy or not annotated, f"{path}: annotations would be run"
        starred = [
            n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"
        ]
        assert not starred, path
