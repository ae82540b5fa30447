"""One response, as a field or an item of a list holds it, with the numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from prefero.data.examples import Response
from prefero.data.formats.fields import PLACE, TURNS, Fields, are_messages, first_of, number_of, rows_of
from prefero.data.formats.names import RANKS, RESPONSES, SCORES, WRITERS

ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity", "honesty", "truthfulness")
"""Aspects of a response that annotators score, in fields of their own."""

OF_RESPONSES = (*SCORES, *RANKS, *ASPECTS, *WRITERS, "annotations")
"""What may be known of a response beside what a message says."""


def read_response(fields: Fields, name: str, role: str | None = None) -> Response:
    """The response in a field."""
    value = fields.require(name, TURNS)
    if isinstance(value, Mapping) and not are_messages(value):
        if name in fields.spelled:
            key = first_of(value, RESPONSES) or RESPONSES[0]
            fields.note(f"{name} is a text that spells an object, whose {key} is read as the response")
        return as_response(fields, value, name, role)
    if number_of(value) is not None and not isinstance(value, str):
        fields.note(f"{name} is a number, which is read as its text")
        return Response(str(value), role)
    if (message := _single(value)) is not None:
        return as_response(fields, message, name, role)
    return Response(fields.turns(name), role)


def _single(value: Any) -> Mapping[str, Any] | None:
    """The message that a value is, or the only one of a list."""
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    return alone if isinstance(alone, Mapping) and are_messages(alone) and rows_of(alone) is None else None


def as_response(fields: Fields, item: Any, name: str, role: str | None = None) -> Response:
    """A response as text, as messages, or as an object that holds one with its scores and its writer."""
    if item is None:
        fields.fail(name, "missing", "a response")
    if not isinstance(item, Mapping):
        return Response(fields.as_turns(item, name), role)
    if are_messages(item):
        fields.get(PLACE.sub("", name))
        content = fields.as_turns({key: item[key] for key in item if key not in OF_RESPONSES}, name)
    else:
        key = first_of(item, RESPONSES) or RESPONSES[0]
        held = fields.take(name, item, key)
        if held is None:
            fields.fail(f"{name}.{key}", "missing", f"a response in one of {', '.join(RESPONSES)}")
        content = fields.as_turns(held, f"{name}.{key}")
    writer = first_of(item, WRITERS)
    return Response(
        content,
        role,
        columns=_annotations(fields, item, name),
        writer=str(fields.take(name, item, writer)) if writer else "",
    )


def refuse_silence(fields: Fields, names: Sequence[str], responses: Sequence[Response]) -> None:
    """Raises :class:`PreferoError` for a response that says nothing."""
    for name, response in zip(names, responses, strict=True):
        fields.not_empty(response.content, name)


def refuse_equal(fields: Fields, names: Sequence[str] = ("chosen", "rejected")) -> NoReturn:
    """Raises :class:`PreferoError` for a pair whose sides are the same."""
    better, worse = names
    fields.fail(worse, f"it equals {better}, so the pair prefers nothing", "two different responses")


def _annotations(fields: Fields, item: Mapping[str, Any], name: str) -> dict[str, float]:
    columns: dict[str, float] = {}
    aspects = {aspect: fields.take(name, item, aspect) for aspect in ASPECTS if item.get(aspect) is not None}
    for aspect, value in {**aspects, **(fields.take(name, item, "annotations") or {})}.items():
        rating = value
        if isinstance(value, Mapping):
            key = "Rating" if "Rating" in value else "rating"
            rating = fields.take(f"{name}.annotations.{aspect}", value, key)
        if rating not in (None, "N/A"):
            columns[f"score/{aspect}"] = fields.as_number(rating, f"{name}.annotations.{aspect}")
    if columns:
        columns["score"] = sum(columns.values()) / len(columns)
    return columns | judged(fields, item, name, {"score": SCORES, "rank": RANKS})


def judged(
    fields: Fields, item: Mapping[str, Any], name: str, keys: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The numbers of an object in a list, by column; ``keys`` are the names that each may have there."""
    columns: dict[str, float] = {}
    for column, names in keys.items():
        if key := first_of(item, names):
            number = fields.as_number(fields.take(name, item, key), f"{name}.{key}")
            columns[column] = int(number) if column == "rank" else number
    return columns
