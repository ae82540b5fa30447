"""One version: of the library, of the laboratory, of what each requires of the other, and of the citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def project(file: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / file).read_text("utf-8"))["project"]


LIBRARY, LABORATORY = project("pyproject.toml"), project("lab/pyproject.toml")
VERSION = LIBRARY["version"]


def test_the_laboratory_has_the_version_of_the_library() -> None:
    assert LABORATORY["version"] == VERSION


@pytest.mark.parametrize(
    "requirement",
    [
        *LIBRARY["optional-dependencies"]["lab"],
        *(
            one
            for requirements in (LABORATORY["dependencies"], *LABORATORY["optional-dependencies"].values())
            for one in requirements
            if re.match(r"prefero\b", one)
        ),
    ],
)
def test_library_and_laboratory_require_this_version_of_each_other(requirement: str) -> None:
    assert requirement.endswith(f"=={VERSION}")


def test_the_citation_has_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == VERSION


def test_the_changelog_has_the_version() -> None:
    assert re.search(rf"^## \[{re.escape(VERSION)}\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
