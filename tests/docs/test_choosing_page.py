"""The guide names methods that the data it speaks of suffice for."""

from __future__ import annotations

import functools
import re

import pytest

from prefero.cli.catalogue import overview, suffices
from prefero.objectives import methods
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "choosing.md").read_text("utf-8")
TABLE = PAGE[PAGE.index("## What do your data carry?") : PAGE.index("## What do you want to avoid?")]
ROWS = re.findall(r"^\| ([^|`]+) \| (`\w[^|]+`) \| ([^|]+) \| ([^|]+) \|$", TABLE, re.M)


@functools.cache
def carried() -> dict[str, set[str]]:
    """What every method wants of its data."""
    return {entry["key"]: {*entry["feedback"], *entry["annotations"]} for entry in overview()}


def test_the_table_is_read() -> None:
    assert len(ROWS) == TABLE.count("\n|") - 2


@pytest.mark.parametrize(("have", "data", "first", "then"), ROWS, ids=[row[0] for row in ROWS])
def test_the_data_suffice_for_the_methods(have: str, data: str, first: str, then: str) -> None:
    named = re.findall(r"\[`(\w+)`\]", first + then)
    assert named
    for key in named:
        assert suffices(re.findall(r"`(\w+)`", data), carried()[key]), key


def test_methods_that_save_a_reference_read_none() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| no memory or time for a reference"))
    without = {entry["key"] for entry in overview(reference=False)}
    named = {key for key in re.findall(r"\[`(\w+)`\]", row) if key in methods()}
    assert named and named <= without
