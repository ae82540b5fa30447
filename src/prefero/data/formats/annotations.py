"""Annotations of a row that :data:`prefero.data.schema.SCHEMA` knows, whatever the layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.fields import Fields
from prefero.data.formats.images import with_images
from prefero.data.formats.parts import with_other_parts
from prefero.data.formats.spans import read_spans
from prefero.data.schema import OTHER_RESPONSES, SCHEMA, ColumnSpec

TRUE = (True, 1, "1", "true", "True", "yes")
FALSE = (False, 0, -1, "0", "-1", "false", "False", "no")


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


def truth(fields: Fields, field: str, value: Any) -> bool:
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    fields.fail(field, f"found {value!r}", "true or false (1 or 0)")
