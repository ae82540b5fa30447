"""The pages of the methods say what the code says."""

from __future__ import annotations

from docs.method_pages import FOLDER, pages


def test_the_pages_are_current() -> None:
    made = pages()
    stale = {
        name
        for name, text in made.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != text
    }
    extra = {file.name for file in FOLDER.glob("*.md")} - set(made)
    assert not stale | extra, "python -m docs.method_pages writes them anew"


def test_a_page_is_whole() -> None:
    page = pages()["simpo.md"]
    for part in (
        "−log σ(β/|y_w|",
        "arxiv.org/abs/2405.14734",
        "`gamma`",
        "llama-3-8b-instruct",
        "chosen, rejected",
    ):
        assert part in page
