"""One response, as a field or an item of a list holds it, with the numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from prefero.data.examples import Response
from prefero.data.formats.fields import TURNS, Fields, are_messages, first_of
from prefero.data.formats.names import is_nothing

TEXTS = ("response", "completion", "answer", "text", "content", "output", "generation", "messages")
SCORES = (
    "score",
    "overall_score",
    "rating",
    "reward",
    "fine-grained_score",
    "pm_score",
    "helpfulness",
    "overall_rating",
    "average_rating",
    "avg_rating",
)
RANKS = ("rank", "ranking")
WRITERS = ("model", "policy", "model_name", "writer", "author")

ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity", "honesty", "truthfulness")
"""Aspects of a response that annotators score, in fields of their own."""


def read_response(fields: Fields, name: str, role: str | None = None) -> Response:
    """The response in a field."""
    value = fields.require(name, TURNS)
    if isinstance(value, Mapping) and not are_messages(value):
        return as_response(fields, value, name, role)
    if is_nothing(value):
        fields.note(f"{name} is the word {value.strip()!r}")
    return Response(fields.turns(name), role)


def as_response(fields: Fields, item: Any, name: str, role: str | None = None) -> Response:
    """A response as text, as messages, or as an object that holds one with its scores and its writer."""
    if not isinstance(item, Mapping) or are_messages(item):
        if item is None:
            fields.fail(name, "missing", "a response")
        return Response(fields.as_turns(item, name), role)
    key = first_of(item, TEXTS) or TEXTS[0]
    held = fields.take(name, item, key)
    if held is None:
        fields.fail(f"{name}.{key}", "missing", "a response")
    writer = first_of(item, WRITERS)
    return Response(
        fields.as_turns(held, f"{name}.{key}"),
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
        rating = value.get("Rating", value.get("rating")) if isinstance(value, Mapping) else value
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
