"""A fingerprint of the code that a stage can reach: it changes when behaviour may, and only then.

From a stage's `run` the definitions of `mars/` are followed that its code names, wherever the names
lead: functions, classes, constants. A definition that nothing reaches counts for nothing. What
importing a module does beside defining (a call, a registration) counts for whoever imports it.

Left out: comments, docstrings, formatting, annotations of functions, the sentences of a UserError
and of a `print` that calls nothing. Of the spec's own types only methods count; the values are in
the spec. Code that hands files and specs to a stage (command line, workflow, Job) is not reached.
Names that are computed while running cannot be followed; a test forbids them in `mars/`.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


def project() -> Path:
    """The checkout that the package is in."""
    return PACKAGE.parent


# Calls in a top-level assignment that only make a value, and decorators that only wrap.
PURE = {
    *(set(dir(builtins)) - {"open", "exec", "eval", "input", "print", "setattr", "delattr"}),
    *("dataclass", "field", "cache", "lru_cache", "contextmanager", "wraps", "overload"),
    *("inference_mode", "no_grad", "runtime_checkable", "TypeVar", "compile", "getLogger"),
    *("Path", "parent", "with_name", "resolve", "Annotated", "Field", "Option", "Argument"),
    *("items", "keys", "values", "join", "split", "format", "partial"),
}
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
VALIDATORS = ("field_validator", "model_validator")


@dataclass(frozen=True)
class Reached:
    """What a stage can reach: the hash of each module's part in it, and the packages it uses.

    Attributes:
        modules: by dotted name, only definitions that are reached.
        packages: names under which third-party packages are imported.
    """

    modules: dict[str, str]
    packages: frozenset[str]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.modules)


def code_of(run: Callable[..., Any], spec: type | None = None) -> Reached:
    """The code behind a stage's ``run``, a top-level function, and the methods of its spec.

    Raises:
        ModuleNotFoundError: ``run`` is not of this package.
    """
    return _code_of(PACKAGE, _name(run), spec and _name(spec))


@cache
def _code_of(package: Path, run: tuple[str, str], spec: tuple[str, str] | None) -> Reached:
    walk = _Walk(_source(package))
    walk.reach(*run)
    if spec is not None:
        walk.reach_methods(*spec)
    return walk.result()


def forget() -> None:
    """Drop what was read of the code, after an edit within one process."""
    _code_of.cache_clear()
    _source.cache_clear()


def fingerprint_of(modules: Mapping[str, str]) -> str:
    """The fingerprint that parts of modules make together."""
    lines = (f"{name}\0{modules[name]}\0" for name in sorted(modules))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _name(thing: Any) -> tuple[str, str]:
    return thing.__module__, thing.__qualname__


# --- one module ---------------------------------------------------------------------------------


@dataclass
class _Module:
    """The top level of a module.

    Attributes:
        definitions: statements that bind a name.
        effects: statements that do something when the module is imported.
        aliases: what imported names stand for: a dotted module, and a name in it or None.
    """

    name: str
    file: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    aliases: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    imported: list[str] = field(default_factory=list)  # dotted modules, as imported on top level

    @property
    def package(self) -> str:
        """What relative imports are relative to."""
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]

    def add(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                for bound, target in imports(statement, self.package):
                    self.aliases[bound] = target
                    self.imported.append(target[0])
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.definitions.setdefault(statement.name, []).append(statement)
                if not all(_is_pure(decorator) for decorator in statement.decorator_list):
                    self.effects.append(statement)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(statement.test):
                pass
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                for name in _bound(statement):
                    self.definitions.setdefault(name, []).append(statement)
                if not _bound(statement) or not _is_lazy(statement.value):
                    self.effects.append(statement)
            case _:  # a call, or a condition around others
                for name in _bound(statement):
                    self.definitions.setdefault(name, []).append(statement)
                self.effects.append(statement)


def imports(
    statement: ast.Import | ast.ImportFrom, package: str
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Each name that an import binds, with the dotted module and the name in it (or None)."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0], (alias.name, None)
        return
    base = statement.module or ""
    if statement.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - statement.level + 1], *base.split(".")]).strip(".")
    for alias in statement.names:
        yield alias.asname or alias.name, (base, alias.name)


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a statement stores, those inside functions and classes left out."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    found: list[str] = []
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append(node.id)
        elif isinstance(node, inner[:3]):
            found.append(node.name)  # type: ignore[attr-defined]
        if not isinstance(node, inner):
            waiting += ast.iter_child_nodes(node)
    return list(dict.fromkeys(found))


def _is_pure(call: ast.expr) -> bool:
    """Whether a decorator, or the function of a call, only makes a value."""
    called = call.func if isinstance(call, ast.Call) else call
    last = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return last in PURE or last in VALIDATORS or last[:1].isupper()  # a class


def _is_lazy(value: ast.expr | None) -> bool:
    """Whether computing a value does nothing else, so that it matters only to who uses it."""
    calls = (node for node in ast.walk(value) if isinstance(node, ast.Call)) if value else ()
    return all(_is_pure(call) for call in calls)


class _Source:
    """The modules of the package, read when first asked for."""

    def __init__(self, package: Path):
        self.package = package
        self._modules: dict[str, _Module | None] = {}

    def module(self, name: str) -> _Module | None:
        """A module by dotted name; None if there is none in the package."""
        if name not in self._modules:
            file = self._file(name)
            self._modules[name] = None
            if file is not None:
                module = self._modules[name] = _Module(name, file)
                for statement in _parsed(file.read_text()).body:
                    module.add(statement)
        return self._modules[name]

    def _file(self, name: str) -> Path | None:
        first, *rest = name.split(".")
        if first != self.package.name:
            return None
        path = self.package.joinpath(*rest)
        candidates = (path.with_suffix(".py"), path / "__init__.py") if rest else ()
        return next((file for file in (*candidates, path / "__init__.py") if file.is_file()), None)


@cache
def _source(package: Path) -> _Source:
    return _Source(package)


# --- what can be reached ------------------------------------------------------------------------


class _Walk:
    """Follows names from definition to definition."""

    def __init__(self, source: _Source):
        self.source = source
        self.seen: set[tuple[str, str]] = set()
        self.waiting: list[tuple[str, str]] = []
        self.imported: set[str] = set()
        self.packages: set[str] = set()
        self.parts: dict[str, set[str]] = {}  # of each module, the reached code as text

    def result(self) -> Reached:
        while self.waiting:
            self._definition(*self.waiting.pop())
        modules = {
            name: hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()
            for name, parts in self.parts.items()
        }
        return Reached(dict(sorted(modules.items())), frozenset(self.packages))

    def reach(self, module_name: str, name: str) -> None:
        """Count a name of a module, and all that it leads to."""
        if (module_name, name) not in self.seen:
            self.seen.add((module_name, name))
            self.waiting.append((module_name, name))

    def _definition(self, module_name: str, name: str) -> None:
        module = self.source.module(module_name)
        if module is None:
            raise ModuleNotFoundError(f"{module_name} is not a module of this package")
        self.run_import(module_name)
        if name in module.definitions:
            for statement in module.definitions[name]:
                self.take(module, statement)
        elif name in module.aliases:
            self._follow(module.aliases[name], [])
        elif self.source.module(f"{module_name}.{name}") is not None:
            self._whole(f"{module_name}.{name}")
        elif name not in ("__name__", "__doc__"):
            self._whole(module_name)

    def reach_methods(self, module_name: str, name: str) -> None:
        """The methods of a spec's type and of the types of its fields; fields are values."""
        if (module_name, f"{name} as values") in self.seen:
            return
        self.seen.add((module_name, f"{name} as values"))
        module = self.source.module(module_name)
        if module is None or name not in (*module.definitions, *module.aliases):
            return
        if name in module.aliases:
            target, attribute = module.aliases[name]
            if attribute is not None:
                self.reach_methods(target, attribute)
            return
        for statement in module.definitions[name]:
            named = [statement] if isinstance(statement, ast.Assign | ast.AnnAssign) else []
            for part in statement.body if isinstance(statement, ast.ClassDef) else ():
                if not isinstance(part, ast.FunctionDef):
                    named.append(part)  # type: ignore[arg-type]
                elif not any(_is_validator(decorator) for decorator in part.decorator_list):
                    self.take(module, part)
            bases = statement.bases if isinstance(statement, ast.ClassDef) else []
            for node in (node for one in (*named, *bases) for node in ast.walk(one)):
                if isinstance(node, ast.Name):
                    self.reach_methods(module_name, node.id)

    def run_import(self, name: str) -> None:
        """What an import runs: the packages above, the imports of the module, its effects."""
        module = self.source.module(name)
        if module is None or name in self.imported:
            return
        self.imported.add(name)
        self.run_import(name.rpartition(".")[0])
        for other in module.imported:
            self.run_import(other)
        for other, attribute in module.aliases.values():
            if attribute is not None:
                self.run_import(f"{other}.{attribute}")
        for statement in module.effects:
            self.take(module, statement)

    def take(self, module: _Module, statement: ast.stmt) -> None:
        """Count a statement, and follow what it names."""
        parts = self.parts.setdefault(module.name, set())
        text = _spelt(statement)
        if text in parts:
            return
        parts.add(text)
        aliases = dict(module.aliases)
        for node in _counted(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for bound, target in imports(node, module.package):
                    aliases[bound] = target
                    self.run_import(target[0])
                    if target[1] is not None:
                        self.run_import(f"{target[0]}.{target[1]}")
                    if self.source.module(target[0]) is None:
                        self.packages.add(target[0].split(".")[0])
        for name, attributes in _names(statement):
            if name == "__file__":
                self._files(module, statement)
            elif name in aliases:
                self._follow(aliases[name], attributes)
            if name in module.definitions:
                self.reach(module.name, name)

    def _follow(self, target: tuple[str, str | None], attributes: list[str]) -> None:
        """An imported name, with the attributes that are taken of it: ``module.function``."""
        name, attribute = target
        path = [attribute, *attributes] if attribute is not None else attributes
        if self.source.module(name.split(".")[0]) is None:
            self.packages.add(name.split(".")[0])
            return
        if attribute is None:  # `import a.b` binds `a`, and so did the attributes begin there
            below = name.split(".")[1:]
            path = path[len(below) :] if path[: len(below)] == below else path
        while path and self.source.module(f"{name}.{path[0]}") is not None:
            module = self.source.module(name)
            if module is not None and path[0] in module.definitions:
                break
            name, path = f"{name}.{path[0]}", path[1:]
        if not path or path[0] == "__file__":
            self._whole(name)
        else:
            self.reach(name, path[0])

    def _whole(self, name: str) -> None:
        """Everything in a module that is handed on as a value."""
        module = self.source.module(name)
        assert module is not None
        self.run_import(name)
        for defined in module.definitions:
            self.reach(name, defined)

    def _files(self, module: _Module, statement: ast.stmt) -> None:
        """The files that a statement finds beside its module: those it names, or all but code."""
        folder = module.file.parent
        constants = (node.value for node in ast.walk(statement) if isinstance(node, ast.Constant))
        named = [folder / text for text in constants if isinstance(text, str) and text.strip("./")]
        found = [path for path in named if path.exists()]
        for path in found or [folder]:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                skipped = (".pyc", ".md") if found else (".py", ".pyc", ".md")
                if file.is_file() and file.suffix not in skipped:
                    content = file.read_bytes()
                    if file.suffix == ".py":
                        content = _spelt(_parsed(content.decode())).encode()
                    digest = hashlib.sha256(content).hexdigest()
                    relative = file.relative_to(self.source.package)
                    self.parts[module.name].add(f"{relative}\0{digest}")


@cache  # once for all stages that reach it
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _is_validator(decorator: ast.expr) -> bool:
    return any(name in ast.unparse(decorator) for name in VALIDATORS)


def _is_message(node: ast.AST) -> bool:
    """A sentence for people, which changes no result: of an error, or printed."""
    match node:
        case ast.Raise(exc=ast.Call(func=ast.Name(id="UserError"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="print")) as call):
            return sum(isinstance(inner, ast.Call) for inner in ast.walk(call)) == 1
    return False


def _parts(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that count, without what is left out."""
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "type_comment", "type_params", "kind", "returns"):
            continue
        if name == "annotation" and isinstance(node, ast.arg):
            continue
        if name == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False):
            value = value[1:]
        if value is not None and value != []:
            yield name, value


def _counted(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it that count."""
    yield node
    if _is_message(node):
        return
    for _, value in _parts(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _counted(child)


@cache
def _spelt(node: ast.AST) -> str:
    """A node spelt in one way, the same under every version of Python."""
    return "".join(_text(node))


def _text(node: Any) -> Iterator[str]:
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        if _is_message(node):
            yield "message"
        else:
            for name, value in _parts(node):
                yield f"{name}="
                yield from _text(value)
                yield ","
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _text(item)
            yield ","
        yield "]"
    else:
        yield repr(node)


@cache
def _names(statement: ast.stmt) -> list[tuple[str, list[str]]]:
    """Each name that is read, with the attributes that are taken of it."""
    found = []
    inner: set[int] = set()  # names that were seen as the beginning of a chain
    for node in _counted(statement):
        chain: list[str] = []
        base: ast.AST = node
        while isinstance(base, ast.Attribute):
            chain.insert(0, base.attr)
            base = base.value
        if isinstance(base, ast.Name) and id(base) not in inner:
            inner.add(id(base))
            found.append((base.id, chain))
    return found
