"""Texts that users and contributors read use the field's words: pages, help of the commands, docstrings.

``PHRASES`` has what to avoid and what to write in its place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from docs.generate import PARTS
from prefero.cli.main import app

ROOT = Path(__file__).parents[1]

PHRASES: Mapping[str, str] = {
    r"what came of it": "results",
    r"go(es)? on from": "resumes from, continues from",
    r"another beside the policy": "auxiliary model",
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"spoil(s|ed|ing|t)?": "corrupted",
    r"(key|name|field|kind|method|setting)( of \w+)? that there is not": "unknown",
    r"ghosts?": "dummy",
    r"of one's own": "your own",
    r"outside of": "outside",
}

OPENINGS: Mapping[str, str] = {
    r"What\b": "a noun phrase that names the thing",
    r"Of\b": "a noun phrase that names the thing",
}
"""Beginnings of docstrings."""

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "docs").glob("*.md"),
        *(file for part in PARTS if part != "survey" for file in (ROOT / "docs" / part).glob("index.md")),
    ]
)

FOLDERS = (
    *(
        f"src/prefero/{package}"
        for package in (
            *("cli", "data", "demo", "doctor", "evaluate", "generate", "models", "reference", "report"),
            "training",
        )
    ),
    "lab/src/prefero_lab/cli",
)

SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def avoidable(text: str) -> Iterator[str]:
    for phrase, better in PHRASES.items():
        for found in re.finditer(rf"\b{phrase}\b", " ".join(text.split()), re.I):
            yield f"{found[0]!r}: write {better}"


def in_source(text: str) -> Iterator[str]:
    """Phrases anywhere in it, and openings of its docstrings."""
    yield from avoidable(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            for opening, better in OPENINGS.items():
                if re.match(opening, docstring):
                    yield f"{docstring.splitlines()[0]!r}: begin with a verb or {better}"


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", PAGES, ids=place)
def test_a_page(file: Path) -> None:
    assert not list(avoidable(file.read_text("utf-8")))


@pytest.mark.parametrize("name", typer.main.get_command(app).commands)  # type: ignore[attr-defined]
def test_the_help_of_a_command(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert not list(avoidable(re.sub("[│╭╮╰╯─]", " ", shown.output)))


@pytest.mark.parametrize("file", SOURCES, ids=place)
def test_a_source_file(file: Path) -> None:
    assert not list(in_source(file.read_text("utf-8")))
