"""The fenced code blocks of a page, and why a block is not run where a comment before it says so::

<!-- not run: needs eight GPUs -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

GENERATED = ("annotations", "changelog", "commands", "monitors", "recipes", "settings", "trl")

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{file.name}" for file in ROOT.glob("docs/*.md") if file.stem not in GENERATED),
)
"""Everything that was written by hand; what is generated has tests of its own."""

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.M | re.S)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: str, content: str) -> Iterator[Block]:
    for found in FENCE.finditer(content):
        before = content[: found.start()]
        told = NOT_RUN.search(before)
        yield Block(
            page,
            before.count("\n") + 2,
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M),
            told["reason"].strip() if told else "",
        )


def read(page: str) -> list[Block]:
    return list(blocks(page, (ROOT / page).read_text("utf-8")))
