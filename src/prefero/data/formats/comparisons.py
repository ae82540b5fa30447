"""Two responses that several people compared, ties allowed, as in PandaLM's test set.

``annotator1``, ``annotator2``, … hold 1 where the first response is better, 2 where the second is, 0 for a
tie. The response with more votes is the chosen one (the first, where they have as many); it is a tie where
neither side has more votes than the other and than "tie". The shares stay in ``preference``. An empty
response was judged all the same and is kept: it is an end token alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout

ANNOTATOR = re.compile(r"annotator_?\d+")
SIDES = (("response1", "response2"), ("response_1", "response_2"), ("response_a", "response_b"))


def read_comparison(fields: Fields) -> Example:
    names = next((pair for pair in SIDES if pair[0] in fields or pair[1] in fields), SIDES[0])
    first, second = (_answer(fields, name) for name in names)
    if first == second:
        fields.fail(names[1], f"it equals {names[0]}, so there is nothing to compare", "another response")
    votes = Counter(_vote(fields, name) for name in fields.values if ANNOTATOR.fullmatch(name))
    if votes[2] > votes[1]:
        first, second, votes = second, first, Counter({0: votes[0], 1: votes[2], 2: votes[1]})
    return Example(
        ({"role": "user", "content": instruction(fields)},),
        (Response(first, "chosen"), Response(second, "rejected")),
        {
            "tie": votes[1] <= max(votes[0], votes[2]),
            "preference": (votes[1] + votes[0] / 2) / votes.total(),
        },
    )


def instruction(fields: Fields) -> str:
    """The instruction, and behind an empty line its input, where it has one."""
    name = fields.first(("instruction", "prompt", "question")) or "instruction"
    text, extra = fields.text(name), fields.values.get("input")
    return f"{text}\n\n{fields.text('input')}" if extra else text


def _answer(fields: Fields, name: str) -> str:
    """Text; a bare truth value or number is what an export made of the answer that spelled it."""
    value = fields.require(name, "text")
    return str(value) if isinstance(value, bool | int | float) else fields.text(name)


def _vote(fields: Fields, name: str) -> int:
    expected = "1 (the first is better), 2 (the second) or 0 (a tie)"
    vote = fields.number(name, expected)
    if vote not in (0, 1, 2):
        fields.fail(name, f"found {fields.values[name]!r}", expected)
    return int(vote)


def _matches(specimen: Mapping[str, Any]) -> bool:
    compared = any(first in specimen or second in specimen for first, second in SIDES)
    return compared and any(ANNOTATOR.fullmatch(str(name)) for name in specimen)


COMPARISONS = Layout(
    "comparisons",
    "instruction, input, response1, response2, annotator1, annotator2, … (1, 2, or 0 for a tie)",
    _matches,
    read_comparison,
)
