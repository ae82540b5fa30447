"""Annotations of parts of a response, in one form for all layouts.

A part is an object with its place and what is known of it::

    {"start": 4, "end": 9, "segment": 1, "score": 3.5}

``start`` and ``end`` are character offsets into the field that holds the response, end exclusive; left out,
they are the field's beginning and end. Of a response of messages, ``turn`` says which turn of the assistant
is meant, from 1, and the offsets count in its text. ``segment`` and ``step`` are numbers from 1, ``weight``,
``score`` and ``image_weight`` any numbers. Where spans overlap, the later one counts.

The objects stand in a list: ``chosen_spans`` and ``rejected_spans`` beside responses with roles, ``spans``
beside a single response, a list of such lists under ``spans`` beside a list of responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefero.data.examples import Response, Span, spoken
from prefero.data.formats.fields import Fields

NUMBERED = ("segment", "step")
SCORES = ("weight", "score", "image_weight")
EXPECTED = "a list of objects, each with start, end and what is known of the part"


def read_spans(fields: Fields, responses: Sequence[Response]) -> list[tuple[Span, ...]] | None:
    """The spans of each response; None if the row has none."""
    named = [f"{response.role}_spans" for response in responses]
    if any(name in fields for name in named):
        return [
            _spans(fields, name, fields.list(name, EXPECTED) if fields.values.get(name) else [], response)
            for name, response in zip(named, responses, strict=True)
        ]
    if not fields.values.get("spans"):
        return None
    items = fields.list("spans", EXPECTED)
    if len(responses) == 1:
        return [_spans(fields, "spans", items, responses[0])]
    if len(items) != len(responses):
        fields.fail("spans", f"{len(items)} lists for {len(responses)} responses", "one list a response")
    return [
        _spans(fields, f"spans[{at}]", item or [], response)
        for at, (item, response) in enumerate(zip(items, responses, strict=True))
    ]


def _spans(fields: Fields, name: str, items: Any, response: Response) -> tuple[Span, ...]:
    if not isinstance(items, list | tuple):
        fields.fail(name, f"found {type(items).__name__}", EXPECTED)
    return tuple(
        span for at, item in enumerate(items) for span in _read(fields, f"{name}[{at}]", item, response)
    )


def _read(fields: Fields, name: str, item: Any, response: Response) -> list[Span]:
    """One object: a span for each number that it has, the scores on all of them."""
    if not isinstance(item, Mapping):
        fields.fail(name, f"found {type(item).__name__}", "an object with start and end")
    start, end = _place(fields, name, item, response)
    scores = {
        key: fields.as_number(item[key], f"{name}.{key}") for key in SCORES if item.get(key) is not None
    }
    numbers = {
        key: _whole(fields, f"{name}.{key}", item[key], 1) for key in NUMBERED if item.get(key) is not None
    }
    if not scores and not numbers:
        known = ", ".join((*NUMBERED, *SCORES))
        fields.fail(name, "nothing is known of the part", f"one of {known}")
    return [Span(start, end, kind, index, scores) for kind, index in (numbers or {"part": 0}).items()]


def _place(fields: Fields, name: str, item: Mapping[str, Any], response: Response) -> tuple[int, int]:
    """Offsets into what the response says."""
    turns = spoken(response.content)
    turn = _whole(fields, f"{name}.turn", item["turn"], 1) if item.get("turn") is not None else 1
    if turn > len(turns):
        fields.fail(f"{name}.turn", f"found {turn}", f"at most {len(turns)}, the turns of the assistant")
    text = turns[turn - 1]
    before = _before(fields, response, text)
    start = _whole(fields, f"{name}.start", item["start"], 0) - before if _has(item, "start") else 0
    end = _whole(fields, f"{name}.end", item["end"], 0) - before if _has(item, "end") else len(text)
    if not 0 <= start < end <= len(text):
        fields.fail(
            name,
            f"it reaches from {start + before} to {end + before}",
            f"a part of the response, which reaches from {before} to {before + len(text)}",
        )
    offset = sum(map(len, turns[: turn - 1]))
    return offset + start, offset + end


def _has(item: Mapping[str, Any], key: str) -> bool:
    return item.get(key) is not None


def _before(fields: Fields, response: Response, text: str) -> int:
    """How much of the field stands before the response: a prompt that both sides repeat."""
    field = fields.values.get(response.role or "")
    if isinstance(response.content, str) and isinstance(field, str) and field.endswith(text):
        return len(field) - len(text)
    return 0


def _whole(fields: Fields, name: str, value: Any, lowest: int) -> int:
    expected = f"a whole number, at least {lowest}"
    number = fields.as_number(value, name, expected)
    if number != int(number) or number < lowest:
        fields.fail(name, f"found {value!r}", expected)
    return int(number)
