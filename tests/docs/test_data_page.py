"""The page of layouts has all that there are, in their order, with rows that are read as they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from prefero.data.formats import LAYOUTS, load_examples
from tests.docs.blocks import ROOT, blocks
from tests.docs.test_code_blocks import documents

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))


def test_every_layout_has_its_section_in_the_order_of_recognition() -> None:
    assert list(SECTIONS) == [layout.name for layout in LAYOUTS]


@pytest.mark.parametrize("name", list(SECTIONS))
def test_sample_rows_are_recognised_as_their_layout(name: str, workplace: Path) -> None:
    rows = [row for block in blocks("docs/data.md", SECTIONS[name]) for row in documents(block.text)]
    assert rows
    for row in rows:
        file = Path("row.jsonl")
        file.write_text(json.dumps(row) + "\n", "utf-8")
        examples = load_examples(file)
        assert examples.format == name
        assert len(examples[0].responses) >= 1
