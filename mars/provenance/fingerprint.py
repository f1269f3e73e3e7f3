"""A hash of the code that a stage can run: it changes when behaviour may, and only then.

The fingerprint covers the static import closure of the stage's entry modules inside `mars/`
(comments, docstrings and formatting dropped) and the data files beside them. Left out are the
modules that hand values to a stage without computing any: their effect is in the spec already.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PASSES_VALUES_ONLY = ("mars.cli", "mars.config", "mars.stages", "mars.provenance")


def code_fingerprint(modules: Iterable[str]) -> str:
    """SHA-256 over all that ``modules`` (dotted names inside `mars`) import, directly or not."""
    return fingerprint_of(module_hashes(modules))


def module_hashes(modules: Iterable[str]) -> dict[str, str]:
    """The hash of each module in the import closure of ``modules``, by dotted name."""
    return {module: _code_hash(module) for module in sorted(import_closure(modules))}


def fingerprint_of(hashes: Mapping[str, str]) -> str:
    """The fingerprint that these modules make together."""
    digest = hashlib.sha256()
    for module in sorted(hashes):
        digest.update(f"{module}\0{hashes[module]}\0".encode())
    return digest.hexdigest()


def import_closure(modules: Iterable[str]) -> set[str]:
    """The modules of `mars` reachable from ``modules`` by imports, wherever they stand."""
    reached: set[str] = set()
    waiting = [module for module in modules]
    for module in waiting:
        if _file(module) is None:
            raise ModuleNotFoundError(f"{module} is not a module of this package")
    while waiting:
        module = waiting.pop()
        if module in reached or _passes_values_only(module):
            continue
        reached.add(module)
        # Importing a.b.c runs a/__init__ and a/b/__init__ first.
        waiting += [parent for parent in _parents(module) if parent not in reached]
        waiting += _imports(module)
    return reached


def _passes_values_only(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in PASSES_VALUES_ONLY)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _file(module: str) -> Path | None:
    """The source file of a dotted name inside the package; None if it is no module."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if module.split(".")[0] == PACKAGE.name and candidate.is_file():
            return candidate
    return PACKAGE / "__init__.py" if module == PACKAGE.name else None


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    return ast.parse(file.read_text())


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of the package that ``module`` imports, type-checking imports left out."""
    file = _file(module)
    assert file is not None
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in _run_time_nodes(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return tuple(sorted(name for name in found if _file(name) is not None))


def _run_time_nodes(tree: ast.AST) -> Iterable[ast.AST]:
    """All nodes but the bodies of ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _run_time_nodes(node)


@cache
def _code_hash(module: str) -> str:
    """Hash of a module's syntax tree without docstrings, and of the data files in its folder."""
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            match first:
                case ast.Expr(value=ast.Constant(value=str())):
                    node.body = node.body[1:]
    digest = hashlib.sha256(ast.dump(tree).encode())
    file = _file(module)
    assert file is not None
    if file.parent != PACKAGE:
        for data in sorted(file.parent.rglob("*")):
            if data.is_file() and data.suffix not in (".py", ".pyc", ".md"):
                digest.update(f"{data.relative_to(PACKAGE)}\0".encode() + data.read_bytes())
    return digest.hexdigest()
