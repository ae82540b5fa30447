"""Annotations of a row and of spans of its responses that :data:`prefero.data.schema.SCHEMA` knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from prefero.data.examples import Example, Response, Span, spoken
from prefero.data.formats.fields import Fields, truth
from prefero.data.formats.images import with_images
from prefero.data.formats.pairs import with_other_parts
from prefero.data.schema import OTHER_RESPONSES, SCHEMA, ColumnSpec


def annotate(example: Example, fields: Fields) -> Example:
    """``example`` with the known columns that the row carries and its layout has not already filled, and with
    the spans, further responses and prompts that it carries."""
    if {"chosen", "rejected"} <= set(example.roles):
        example = with_other_parts(example, fields)
    example = with_images(example, fields)
    columns = dict(example.columns)
    responses = list(example.responses)
    for name, spec in SCHEMA.items():
        if not spec.given:
            continue
        if spec.axes in ("example", "example hidden"):
            field = fields.first(spec.fields)
            if name not in columns and field is not None:
                columns[name] = convert(fields, field, fields.values[field], spec)
        elif spec.axes == "example response" and not any(name in r.columns for r in responses):
            values = _per_response(fields, spec, responses)
            if values is not None:
                responses = [
                    response
                    if value is None
                    else replace(response, columns={**response.columns, name: value})
                    for response, value in zip(responses, values, strict=True)
                ]
    spans = read_spans(fields, responses)
    if spans is not None:
        responses = [
            replace(response, spans=(*response.spans, *own))
            for response, own in zip(responses, spans, strict=True)
        ]
    return replace(
        example,
        columns=columns,
        responses=tuple(responses),
        tools=fields.tools(),
        template_options=fields.template_options(),
        origin=fields.origin,
    )


def _per_response(fields: Fields, spec: ColumnSpec, responses: Sequence[Response]) -> list[Any] | None:
    """A value for every response, None for a further one that has none; None alone if no response has any."""
    roles = tuple(response.role for response in responses)
    for name in (name for name in spec.fields if "/" not in name):
        for named in _named_by_role(name, roles):
            if any(field in fields for field in named):
                expected = f"a value for each of {' and '.join(named)}"
                return [
                    None
                    if role in OTHER_RESPONSES and f not in fields
                    else convert(fields, f, fields.require(f, expected), spec)
                    for role, f in zip(roles, named, strict=True)
                ]
        value = fields.values.get(name)
        if len(responses) == 1 and value is not None and not isinstance(value, list):
            return [convert(fields, name, value, spec)]
        # A single value beside several responses says something else than how they compare.
        if not isinstance(value, list | tuple) and not str(value).lstrip().startswith("["):
            continue
        values = fields.list(name, "a list with one value a response")
        if len(values) != len(responses):
            fields.fail(name, f"{len(values)} values for {len(responses)} responses", "one value a response")
        return [convert(fields, name, item, spec) for item in values]
    return None


@lru_cache
def _named_by_role(name: str, roles: tuple[str | None, ...]) -> tuple[tuple[str, ...], ...]:
    """The ways to write ``name`` once for each role, as ``chosen_score`` and ``rejected_score``."""
    if None in roles:
        return ()
    return tuple(f"{role}_{name}" for role in roles), tuple(f"{name}_{role}" for role in roles)


def convert(fields: Fields, field: str, value: Any, spec: ColumnSpec) -> Any:
    """A value of the column's type."""
    if spec.axes == "example hidden":
        if not isinstance(value, list | tuple):
            fields.fail(field, f"found {type(value).__name__}", "a list of numbers")
        return tuple(fields.as_number(item, field) for item in value)
    if spec.dtype == "bool":
        return truth(fields, field, value)
    number = fields.as_number(value, field, f"a number ({spec.meaning})")
    if spec.dtype == "int":
        if number != int(number):
            fields.fail(field, f"found {value!r}", f"a whole number ({spec.meaning})")
        return int(number)
    return number


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
