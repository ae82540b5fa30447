"""``python -m docs.generate`` writes every page of the documentation that follows from the code.

Those of papers are made when the site is built, and are not in the repository: there is one for every module
of ``prefero.papers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from docs import method_pages, recipe_page, reference_pages, survey_pages, trl_page

FOLDER = Path(__file__).parent


def kept() -> dict[str, str]:
    """Paths within ``docs/``, and what has to stand there."""
    return {
        "trl.md": trl_page.page(),
        "recipes.md": recipe_page.page(),
        "choosing.md": survey_pages.cited((FOLDER / "choosing.md").read_text("utf-8")),
        **reference_pages.pages(),
        **{f"methods/{name}": text for name, text in method_pages.pages().items()},
    }


def outdated(made: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """Those that say something else than the code, and pages of methods that are no more."""
    stale = [
        name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
    ]
    there = {f"methods/{file.name}" for file in (folder / "methods").glob("*.md")}
    return [*stale, *sorted(there - set(made))]


def write(folder: Path = FOLDER) -> None:
    """All of them; pages that nothing stands for any more go."""
    made = kept() | {f"survey/{name}": text for name, text in survey_pages.pages().items()}
    for part in ("methods", "survey"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).glob("*.md"):
            if f"{part}/{old.name}" not in made:
                old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
