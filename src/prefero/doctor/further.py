"""Fields of the rows that examples do not keep: single votes, and who wrote the responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from prefero.data.files import Source, load_rows
from prefero.data.formats.lists import ANNOTATOR

WRITERS = (
    ("chosen_model", "rejected_model"),
    ("chosen-model", "rejected-model"),
    ("chosen_source", "rejected_source"),
    ("model_chosen", "model_rejected"),
    ("source_chosen", "source_rejected"),
)
"""Fields that say who wrote the chosen and the rejected response."""

WRITERS_IN_ORDER = (("model1", "model2"), ("model_1", "model_2"), ("model_a", "model_b"))
"""Fields that say who wrote the first and the second of two compared responses."""

BOTH_WRITERS = "cmp_key"
"""PandaLM's field for both: ``bloom-7b_llama-7b``."""

LOOK_AT = 20


@dataclass(frozen=True, slots=True)
class Further:
    """By the origins of rows: ``votes`` as the annotators cast them, ``writers`` of the chosen and the
    rejected response."""

    votes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    writers: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def further(source: Source, *, split: str = "train") -> Further:
    """What else the rows say. Reads the source again, if its first rows have any such field."""
    rows = load_rows(source, split=split)
    if not any(_votes(row.fields) or _writers(row.fields) for row in islice(rows, LOOK_AT)):
        return Further()
    votes, writers = {}, {}
    for row in rows:
        if cast := _votes(row.fields):
            votes[row.origin] = cast
        if both := _writers(row.fields):
            writers[row.origin] = both
    return Further(votes, writers)


def _votes(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """The votes of a row; None where an annotator gave none."""
    return tuple(
        None if value in (None, "") else str(value)
        for name, value in fields.items()
        if ANNOTATOR.fullmatch(str(name))
    )


def _writers(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    for names in WRITERS:
        if all(fields.get(name) for name in names):
            return str(fields[names[0]]), str(fields[names[1]])
    for both in _in_order(fields):
        return both if _first_is_chosen(fields) else both[::-1]
    return None


def _in_order(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for names in WRITERS_IN_ORDER:
        if all(fields.get(name) for name in names):
            yield str(fields[names[0]]), str(fields[names[1]])
    parts = str(fields.get(BOTH_WRITERS) or "").split("_")
    if len(parts) == 2 and all(parts):
        yield parts[0], parts[1]


def _first_is_chosen(fields: Mapping[str, Any]) -> bool:
    """As readers of comparisons decide it: by votes, the first where they are even."""
    votes = [vote for vote in _votes(fields) if vote is not None]
    return votes.count("2") <= votes.count("1")
