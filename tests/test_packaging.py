"""What is declared is what is imported: of the library, and of the laboratory."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]

DEVELOPMENT = {"bench", "dev", "docs"}
"""Extras of those who work on prefero: tests, benchmarks and pages import what they have, or make runs it."""

TOOLS = {
    "mypy": "make lint",
    "pytest-xdist": "pytest -n, in make test",
    "ruff": "make lint",
    "types-pyyaml": "mypy reads them",
    "zensical": "make docs",
}
"""What is run and not imported."""

THROUGH_TRANSFORMERS = {
    "bitsandbytes": "model.quantization, which transformers does with it",
    "liger-kernel": "training.use_liger_kernel, which transformers does with it",
}
"""Extras that transformers imports for what a recipe asks."""

PART_OF = {"pydantic-core": "pydantic"}
"""What is documented as a part of another distribution, which pins its exact version."""

ENTRY_POINTS = {"prefero-lab": "its commands and worlds are entry points, and prefero never imports it"}


@dataclass(frozen=True)
class Import:
    """An import of another distribution's module: at the top of a file or in a function, or for type
    checkers alone. ``function`` is the one that it is in."""

    module: str
    place: str
    function: ast.AST | None
    typing: bool


@dataclass(frozen=True)
class Project:
    """A distribution: its folder in the repository and the package it holds."""

    folder: Path
    package: str

    @property
    def settings(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @property
    def required(self) -> dict[str, Requirement]:
        return _by_name(self.settings["dependencies"])

    @property
    def extras(self) -> dict[str, dict[str, Requirement]]:
        """Of each extra what it adds; one that names an extra of the library adds what that one does."""
        found = {}
        for name, lines in self.settings.get("optional-dependencies", {}).items():
            found[name] = _by_name(lines)
            own = found[name].pop("prefero", None)
            for extra in own.extras if own else ():
                found[name] |= _by_name(LIBRARY.settings["optional-dependencies"][extra])
        return found

    @property
    def imports(self) -> tuple[Import, ...]:
        return _imports(self.folder / "src" / self.package)


LIBRARY = Project(ROOT, "prefero")
LABORATORY = Project(ROOT / "lab", "prefero_lab")
PROJECTS = pytest.mark.parametrize("project", [LIBRARY, LABORATORY], ids=["library", "laboratory"])


def _by_name(lines: Any) -> dict[str, Requirement]:
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


@cache
def _imports(folder: Path) -> tuple[Import, ...]:
    """What the files of a folder import of other distributions."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name, line, function, typing in _walk(tree, None, typing=False):
            module = name.split(".")[0]
            if module not in sys.stdlib_module_names and module != folder.name:
                found.append(Import(module, f"{file.relative_to(ROOT)}:{line}", function, typing))
    return tuple(found)


def _walk(
    node: ast.AST, function: ast.AST | None, *, typing: bool
) -> Iterator[tuple[str, int, ast.AST | None, bool]]:
    for child in ast.iter_child_nodes(node):
        for name in _named(child):
            yield name, getattr(child, "lineno", 0), function, typing
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        yield from _walk(child, function or child if inside else function, typing=typing or for_types)


def _named(node: ast.AST) -> Iterator[str]:
    """The modules that a node imports, by statement or by a call that names one."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module
        case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]):
            if ast.unparse(function).split(".")[-1] in ("import_module", "find_spec"):
                yield module


@cache
def _installed() -> dict[str, set[str]]:
    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in packages_distributions().items()
    }


def distributions(module: str) -> set[str]:
    """The distributions that a module may come from; of one that is not installed, the one of its name."""
    found = _installed().get(module) or {canonicalize_name(module)}
    return {PART_OF.get(name, name) for name in found}


def declared_in(one: Import, declared: Any) -> bool:
    return not distributions(one.module).isdisjoint(declared)


@PROJECTS
def test_what_is_imported_is_declared(project: Project) -> None:
    known = set(project.required).union(*(set(one) for one in project.extras.values()))
    wrong = [
        f"{one.place} imports {one.module}, of {' or '.join(sorted(distributions(one.module)))}"
        for one in project.imports
        if not declared_in(one, known)
    ]
    assert not wrong, "neither a dependency nor in an extra: " + "; ".join(wrong)


@PROJECTS
def test_what_is_declared_is_imported(project: Project) -> None:
    used = set().union(*(distributions(one.module) for one in project.imports if not one.typing))
    assert not set(project.required) - used, "dependencies that nothing imports"
    for extra, declared in project.extras.items():
        if extra in DEVELOPMENT:
            continue
        others = set(declared) - used - set(THROUGH_TRANSFORMERS) - set(ENTRY_POINTS)
        assert not others, f"nothing imports what the extra {extra!r} has"


@PROJECTS
def test_extras_are_imported_late_and_say_how_to_install_them(project: Project) -> None:
    name = project.settings["name"]
    for extra, declared in project.extras.items():
        for one in project.imports if extra not in DEVELOPMENT else ():
            if one.typing or declared_in(one, project.required) or not declared_in(one, declared):
                continue
            assert one.function, f"{one.place} imports {one.module} of the extra {extra!r} at its top"
            line = rf"pip install ['\"]{re.escape(name)}\[{extra}\]['\"]"
            said = [part.value for part in ast.walk(one.function) if isinstance(part, ast.Constant)]
            assert any(re.search(line, str(part)) for part in said), (
                f"{one.place} imports {one.module}; where that fails, the function has to say: "
                f'pip install "{name}[{extra}]"'
            )


def test_what_developers_install_is_used() -> None:
    """By tests, benchmarks, pages, examples or scripts, or as a command."""
    folders = ("tests", "lab/tests", "benchmarks", "docs", "examples", "scripts")
    used = {
        name for folder in folders for one in _imports(ROOT / folder) for name in distributions(one.module)
    }
    declared = {name for extra in DEVELOPMENT for name in LIBRARY.extras[extra]}
    assert not declared - used - set(TOOLS)
    own = {"prefero", "prefero-lab", *folders, "lab"}
    available = declared.union(LIBRARY.required, *LIBRARY.extras.values(), own)
    assert not sorted(used - available), "imported by those who work on prefero, and in no extra"


@PROJECTS
def test_data_files_go_into_the_wheel(project: Project) -> None:
    """Everything in the package but programs, and explanations for those who read the repository."""
    tables = tomllib.loads((project.folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tables["setuptools"]["package-data"][project.package]
    folder = project.folder / "src" / project.package
    data = {
        file
        for file in folder.rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc") and file.name != "README.md"
    }
    packed = {pattern: set(folder.glob(pattern)) for pattern in patterns}
    assert not data - set().union(*packed.values())
    assert not [pattern for pattern, files in packed.items() if not files]
    assert not [file.parent for file in folder.rglob("*.py") if not (file.parent / "__init__.py").is_file()]


def pinned(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(one.name): Version(str(one.specifier).removeprefix("==")) for one in pins}


def test_lower_bounds_are_the_versions_that_are_tested() -> None:
    """``make test-oldest`` installs what ``constraints-oldest.txt`` says, and that is what is promised."""
    oldest = pinned("constraints-oldest.txt")
    for name, requirement in LIBRARY.required.items():
        least = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert least == [oldest[name]], f"{requirement}, but constraints-oldest.txt has {oldest[name]}"
    assert set(oldest) == set(LIBRARY.required)


def test_the_versions_of_today_are_within_the_bounds() -> None:
    today = pinned("constraints.txt")
    for project in (LIBRARY, LABORATORY):
        for group in (project.required, *project.extras.values()):
            for name, requirement in group.items():
                if name in today:
                    assert today[name] in requirement.specifier, f"{requirement}, but {today[name]}"


def test_the_laboratory_promises_nothing_else() -> None:
    """Its dependencies are bounded by the library, which it needs in its own version."""
    version = LIBRARY.settings["version"]
    assert LABORATORY.settings["version"] == version
    assert str(LABORATORY.required["prefero"].specifier) == f"=={version}"
    for name, requirement in LABORATORY.required.items():
        if name in LIBRARY.required:
            assert str(requirement.specifier) in ("", str(LIBRARY.required[name].specifier)), requirement
