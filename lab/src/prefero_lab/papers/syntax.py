"""Digests of code by its syntax tree: what it computes, wherever it lies and however it is worded.

A digest is of classes and functions, and of all that they name, directly or not, in their own modules and in
this package. It changes with a formula, a constant, a default, the name of a definition, of an attribute or
of a keyword argument. It does not change with comments, docstrings, annotations, messages of errors, the
names of local variables and positional parameters, the order of definitions, and the modules that names are
imported from. What is imported from elsewhere (a world, the library, torch) counts by its name alone.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = __name__.rpartition(".")[0]
"""The package whose definitions count with their code where they are imported."""

PROJECT = ("prefero", "prefero_lab")
"""Packages whose modules may move: which of them a name is imported from does not count."""

MODULE_NAME = re.compile(rf"\b(?:{'|'.join(PROJECT)})\.(?:\w+\.)*")
"""A module of the project that a string names, up to its last part."""

DROPPED = object()
"""What is written of a node that does not count."""

NOT_NUMBERED = -1
"""Of a local variable that has not been written yet."""

WITH_NAMES_OF_THEIR_OWN = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ClassDef,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

Written = tuple[str, set[str], set[tuple[str, str]]]
"""A statement as text, the names of its own module that it reaches, and those of others of the project."""


@functools.cache
def digest(*roots: Callable[..., Any]) -> str:
    """Of classes and functions, and of what they reach, in 16 digits."""
    return _hashed(_reached(roots))


def digest_of_files(files: Iterable[Path]) -> str:
    """Of all statements of these files, in 16 digits."""
    modules = (Module(file.read_text(encoding="utf-8")) for file in files)
    return _hashed(Writer(module).text(one) for module in modules for one in module.statements)


def _hashed(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:16]


def _reached(roots: Collection[Callable[..., Any]]) -> Iterator[str]:
    own = {root.__module__ for root in roots}
    # What is defined inside a function is read with that function.
    todo = [(root.__module__, root.__qualname__.partition(".")[0]) for root in roots]
    seen: set[tuple[str, str]] = set()
    while todo:
        place, name = todo.pop()
        counts = place in own or place.startswith(f"{PACKAGE}.")
        if (place, name) in seen or not counts:
            continue
        seen.add((place, name))
        module = module_of(place)
        if module is None:
            continue
        imported = module.imports.get(name)
        if imported is not None and imported.name is not None:
            todo.append((imported.module, imported.name))
        for text, inside, outside in module.written(name):
            yield text
            todo += [(place, one) for one in inside]
            todo += outside


@dataclass(frozen=True)
class Imported:
    """What an import binds: ``name`` of ``module``, or the module itself if ``name`` is None."""

    module: str
    name: str | None = None

    @property
    def of_project(self) -> bool:
        return self.module.partition(".")[0] in PROJECT

    @functools.cached_property
    def as_module(self) -> str | None:
        """The name of the module that is bound, if that is what is bound."""
        if self.name is None:
            return self.module
        submodule = f"{self.module}.{self.name}"
        return submodule if self.of_project and file_of(submodule) else None


class Module:
    """The statements of a source file, and by name what they define and import."""

    def __init__(self, source: str) -> None:
        self.statements = ast.parse(source).body
        self.imports = imports_in(self.statements)
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in bound_in([statement]):
                self.definitions.setdefault(name, []).append(statement)
        self._written: dict[str, list[Written]] = {}

    def written(self, name: str) -> list[Written]:
        """The definitions of a name; of a lambda, which has none to find it by, all statements."""
        if name not in self._written:
            statements = self.statements if name == "<lambda>" else self.definitions.get(name, [])
            writers = [(Writer(self), statement) for statement in statements]
            self._written[name] = [(one.text(statement), one.own, one.imported) for one, statement in writers]
        return self._written[name]


@functools.cache
def module_of(name: str) -> Module | None:
    file = file_of(name)
    return Module(file.read_text(encoding="utf-8")) if file else None


@functools.cache
def file_of(module: str) -> Path | None:
    """The source of a module, which is not imported for it; None if there is none."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    package, *parts = module.split(".")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    places = [Path(folder, *parts) for folder in folders or ()]
    files = [file for place in places for file in (Path(f"{place}.py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


@dataclass(frozen=True)
class Scope:
    """The names that a function, comprehension or class binds, and how they are written: what is imported by
    its first name, a local variable by a number in the order of writing, an attribute or keyword as it is
    (None)."""

    names: dict[str, Imported | int | None]
    of_class: bool = False

    @classmethod
    def of_locals(cls, names: Iterable[str]) -> Scope:
        return cls(dict.fromkeys(names, NOT_NUMBERED))


@dataclass
class Writer:
    """Writes a statement of a module without what does not count, and notes what it names: of the module's
    ``own`` names, and ``imported`` ones of the project with their modules."""

    module: Module
    own: set[str] = field(default_factory=set)
    imported: set[tuple[str, str]] = field(default_factory=set)
    locals: int = 0

    def text(self, statement: ast.stmt) -> str:
        written = self._written(statement, ())
        return "" if written is DROPPED else json.dumps(written, ensure_ascii=False, sort_keys=True)

    def _written(self, node: Any, scopes: tuple[Scope, ...]) -> Any:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                return DROPPED
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                return DROPPED
            case ast.Name(id=name):
                return self._name(name, scopes)
            case ast.Attribute(value=ast.Name(id=name)) if module := self._project_module(name, scopes):
                return self._global(node.attr, module)
            case ast.Raise(exc=ast.Call(func=error)):
                return {"node": "Raise", "exc": self._written(error, scopes)}
            case ast.Constant(value=str() as text):
                return {"Constant": repr(MODULE_NAME.sub("", text))}
            case ast.Constant(value=value):
                return {"Constant": repr(value)}
            case ast.AnnAssign() if not (scopes and scopes[-1].of_class):
                if node.value is None:
                    return DROPPED
                return self._written(ast.Assign([node.target], node.value), scopes)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return self._function(node, scopes)
            case ast.ClassDef():
                inner = Scope(dict.fromkeys(bound_in(node.body)), of_class=True)
                body = self._written(node.body, (*scopes, inner))
                return self._fields(node, scopes, name=self._name(node.name, scopes), body=body)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                targets = bound_in(one.target for one in node.generators)
                return self._fields(node, (*scopes, Scope.of_locals(targets)))
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() if node.name is not None:
                return self._fields(node, scopes, name=self._name(node.name, scopes))
            case ast.MatchMapping(rest=str() as name):
                return self._fields(node, scopes, rest=self._name(name, scopes))
            case ast.AST():
                return self._fields(node, scopes)
            case list():
                written = [self._written(one, scopes) for one in node]
                return [one for one in written if one is not DROPPED]
            case _:
                return node

    def _fields(self, node: ast.AST, scopes: tuple[Scope, ...], **written: Any) -> dict[str, Any]:
        """A node by its fields, some of them written already; empty ones are left out, because versions of
        Python differ in them."""
        skipped = {"ctx", "kind", "type_comment", "annotation", "returns", *written}
        fields = {name: value for name, value in ast.iter_fields(node) if name not in skipped}
        rest = {
            name: self._written(value, scopes) for name, value in fields.items() if value not in (None, [])
        }
        return {"node": type(node).__name__, **written, **rest}

    def _function(self, node: Function, scopes: tuple[Scope, ...]) -> dict[str, Any]:
        given = node.args
        body = node.body if isinstance(node.body, list) else [node.body]
        positional = [one.arg for one in (*given.posonlyargs, *given.args)]
        rest = [one.arg if one else "" for one in (given.vararg, given.kwarg)]
        keywords = [one.arg for one in given.kwonlyargs]
        outer = {
            name for one in walked(body) if isinstance(one, ast.Global | ast.Nonlocal) for name in one.names
        }
        inner = Scope.of_locals((bound_in(body) | {*positional, *rest}) - outer)
        inner.names.update(dict.fromkeys(keywords) | imports_in(body))
        around = [given.defaults, given.kw_defaults, getattr(node, "decorator_list", [])]
        return {
            "node": type(node).__name__,
            "name": "" if isinstance(node, ast.Lambda) else self._name(node.name, scopes),
            "around": self._written(around, scopes),
            "positional": [self._name(name, (inner,)) for name in positional],
            "rest": [name and self._name(name, (inner,)) for name in rest],
            "keywords": keywords,
            "body": self._written(body, (*scopes, inner)),
        }

    def _found(self, name: str, scopes: tuple[Scope, ...]) -> Scope | None:
        for depth, scope in enumerate(reversed(scopes)):
            if name in scope.names and (depth == 0 or not scope.of_class):
                return scope
        return None

    def _name(self, name: str, scopes: tuple[Scope, ...]) -> str:
        scope = self._found(name, scopes)
        meaning = scope.names[name] if scope else self.module.imports.get(name)
        if isinstance(meaning, int):
            assert scope is not None
            if meaning == NOT_NUMBERED:
                scope.names[name] = meaning = self.locals
                self.locals += 1
            return f"local {meaning}"
        if isinstance(meaning, Imported):
            return self._meaning(meaning)
        if scope is None and name in self.module.definitions:
            self.own.add(name)
            return f"global {name}"
        return name

    def _meaning(self, imported: Imported) -> str:
        if not imported.of_project:
            return f"import {imported.module}" + (f".{imported.name}" if imported.name else "")
        if imported.as_module is None:
            assert imported.name is not None
            return self._global(imported.name, imported.module)
        return f"module {imported.as_module.rpartition('.')[2]}"

    def _global(self, name: str, module: str) -> str:
        """A name of the project is written alike in its own module and in others."""
        self.imported.add((module, name))
        return f"global {name}"

    def _project_module(self, name: str, scopes: tuple[Scope, ...]) -> str | None:
        scope = self._found(name, scopes)
        meaning = scope.names[name] if scope else self.module.imports.get(name)
        return meaning.as_module if isinstance(meaning, Imported) and meaning.of_project else None


def walked(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and what is in them, without the insides of functions, classes and comprehensions."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, WITH_NAMES_OF_THEIR_OWN):
            todo += ast.iter_child_nodes(node)


def bound_in(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that statements bind, but for imports."""
    found: set[str | None] = set()
    for node in walked(nodes):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                found.add(node.id)
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                found.add(node.name)
            case ast.MatchMapping():
                found.add(node.rest)
    return {name for name in found if name is not None}


def imports_in(nodes: Iterable[ast.AST]) -> dict[str, Imported]:
    found = {}
    for node in walked(nodes):
        match node:
            case ast.Import():
                for one in node.names:
                    first = one.name.partition(".")[0]
                    found[one.asname or first] = Imported(one.name if one.asname else first)
            case ast.ImportFrom():
                for one in node.names:
                    found[one.asname or one.name] = Imported(node.module or "", one.name)
    return found
