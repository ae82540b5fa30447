"""Imports point one way: objectives know no kind of model, models and kinds know no method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefero

ROOT = Path(prefero.__file__).parent

TYPES = {"prefero.objectives.batch", "prefero.objectives.signals", "prefero.objectives.needs"}
"""What a scoring pass is told and gives back: no method is among them."""

BASE = {"bounded_json", "errors", "hub", "lazy", "sections", "storage"}
"""Modules that every package builds on: JSON from outside, errors, the hub, lazy names, checked settings,
files."""

MAY_IMPORT = {
    "data": {"data"} | BASE,
    "objectives": {"objectives", "logic", "data.schema", "errors"},
    "models": {"models", "data", "generate"} | BASE,
    "reference": {"reference", "models", "data"} | BASE,
    "sandbox": {"sandbox", "errors", "lazy"},
}
"""What the modules of a package import of this one; the types of scoring besides, and everything above none
of them."""


def imports(file: Path) -> Iterator[str]:
    """Every module of prefero that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (
                f"{node.module}.{alias.name}"
                if (ROOT.parent / node.module.replace(".", "/") / f"{alias.name}.py").is_file()
                else node.module
                for alias in node.names
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def within(module: str, packages: set[str]) -> bool:
    return any(f"{module}.".startswith(f"prefero.{package}.") for package in packages)


def test_the_library_never_imports_the_laboratory() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in sorted(ROOT.rglob("*.py"))
        for module in imports(file)
        if module.split(".")[0] == "prefero_lab"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_what_lies_below_it(package: str) -> None:
    types = TYPES if package in ("models", "reference") else set()
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for module in imports(file)
        if module.startswith("prefero.") and module not in types
        if not within(module, MAY_IMPORT[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_objectives_are_torch_alone() -> None:
    libraries = {"transformers", "peft", "diffusers", "datasets", "accelerate"}
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in sorted((ROOT / "objectives").rglob("*.py"))
        for module in imports(file)
        if module.split(".")[0] in libraries
    ]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_knows_no_kind_by_name() -> None:
    """It gets a kind from the recipe; only ComPO's step, which moves an output layer, names one's rows."""
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for package in ("training", "reference")
        for file in sorted((ROOT / package).rglob("*.py"))
        if file.name != "oracle.py"
        for module in imports(file)
        if module.startswith("prefero.models.")
        if module
        not in {
            "prefero.models.kind",
            "prefero.models.loading",
            "prefero.models.signals",
        }
    ]
    assert not wrong, "\n".join(wrong)
