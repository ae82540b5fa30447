"""``python -m docs.generate`` writes every page of the documentation that follows from the code, from the
changelog, or from the results of the survey (``lab/measured.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from docs import api_pages, families_page, method_pages, recipe_page, reference_pages, survey_pages, trl_page

FOLDER = Path(__file__).parent
CHANGELOG = FOLDER.parent / "CHANGELOG.md"
PARTS = ("api", "methods", "survey")
"""Folders with a page for each package, method and paper."""


def kept() -> dict[str, str]:
    """Paths within ``docs/``, and what has to stand there."""
    return {
        "trl.md": trl_page.page(),
        "recipes.md": recipe_page.page(),
        "families.md": families_page.page(),
        "changelog.md": CHANGELOG.read_text("utf-8").replace("](docs/", "]("),
        "choosing.md": survey_pages.cited((FOLDER / "choosing.md").read_text("utf-8")),
        **reference_pages.pages(),
        **{f"api/{name}": text for name, text in api_pages.pages().items()},
        **{f"methods/{name}": text for name, text in method_pages.pages().items()},
        **{f"survey/{name}": text for name, text in survey_pages.pages().items()},
    }


def outdated(made: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """Pages that differ from what the code says, and pages of methods, papers and packages that are gone."""
    stale = [
        name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
    ]
    there = {f"{part}/{file.name}" for part in PARTS for file in (folder / part).glob("*.md")}
    return [*stale, *sorted(there - set(made))]


def write(folder: Path = FOLDER) -> None:
    """Write every page, and delete those of methods, papers and packages that are gone."""
    made = kept()
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).glob("*.md"):
            if f"{part}/{old.name}" not in made:
                old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
