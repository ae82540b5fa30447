"""Every module of the library is reached from a command, a public name, or a module that is.

A package whose ``__init__`` has ``__all__`` is public: what it exports is what users import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import prefero

ROOT = Path(prefero.__file__).parent

COMMANDS = ("prefero.cli.main", "prefero.__main__")

REGISTERED = ("prefero.objectives.presets",)
"""Packages that import every module in their folder."""

WAITING = (
    "prefero.feedback",
    "prefero.search",
    "prefero.data.retrieval",
    "prefero.models.arithmetic",
    "prefero.models.diffusion.inversion",
    "prefero.models.diffusion.rewards",
    "prefero.models.diffusion.sampling",
    "prefero.models.diffusion.users",
)
"""Building blocks of pipelines (sampling, judging, pairing, loops, search) that no command uses yet. A module
that a command reaches leaves the list; nothing joins it."""


def modules() -> dict[str, Path]:
    names = {}
    for file in ROOT.rglob("*.py"):
        name = ".".join(("prefero", *file.relative_to(ROOT).with_suffix("").parts))
        names[name.removesuffix(".__init__")] = file
    return names


MODULES = modules()


def named(file: Path) -> Iterator[str]:
    """The modules that a file imports, early or late, or names in a string for a lazy import."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.split(":")[0]


def is_public(package: Path) -> bool:
    tree = ast.parse(package.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__all__" for t in ast.walk(node))
        for node in tree.body
    )


def reached() -> set[str]:
    public = [name for name, file in MODULES.items() if file.name == "__init__.py" and is_public(file)]
    found: set[str] = set()
    waiting = [*COMMANDS, *public]
    while waiting:
        name = waiting.pop()
        if name not in MODULES or name in found:
            continue
        found.add(name)
        waiting += named(MODULES[name])
        waiting += [name.rpartition(".")[0]]
        if name in REGISTERED:
            waiting += [inner for inner in MODULES if inner.startswith(f"{name}.")]
    return found


def waits(module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in WAITING)


def test_every_module_is_reached_by_users() -> None:
    orphans = sorted(module for module in set(MODULES) - reached() if not waits(module))
    assert not orphans, f"no command and no public name reaches {', '.join(orphans)}"


def test_what_waits_is_not_reached_yet() -> None:
    unreached = set(MODULES) - reached()
    done = [name for name in WAITING if not any(f"{module}.".startswith(f"{name}.") for module in unreached)]
    assert not done, f"every module of {', '.join(done)} is reached now: take it from the list"
