"""Several responses to one prompt with their scores: UltraFeedback's layout, and flat lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.comparisons import instruction
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout

LISTS = ("completions", "responses", "generations", "answers", "candidates")
TEXTS = ("response", "completion", "answer", "text", "content")
SCORES = ("score", "overall_score", "rating", "reward")
RANKS = ("rank", "ranking")


def read_list(fields: Fields) -> Example:
    """All responses as unnamed candidates, each with its score or rank.

    Where a response is an object, its score is ``score``, ``overall_score``, ``rating`` or ``reward``, else
    the mean of the aspects in ``annotations``; these stay too, as ``score/helpfulness`` and so on.
    """
    expected = "a list of responses, texts or objects that hold one"
    name = fields.first(LISTS) or LISTS[0]
    items = fields.list(name, expected)
    if len(items) < 2:
        fields.fail(name, f"{len(items)} response", "two responses or more")
    responses = tuple(_response(fields, item, f"{name}[{position}]") for position, item in enumerate(items))
    prompt = fields.turns("prompt") if "prompt" in fields else instruction(fields)
    conversational = not isinstance(prompt, str) or "prompt" not in fields
    conversational = conversational or any(not isinstance(response.content, str) for response in responses)
    if conversational and isinstance(prompt, str):
        prompt = ({"role": "user", "content": prompt},)
    for column in ("score", "rank"):
        having = [column in response.columns for response in responses]
        if any(having) and not all(having):
            bare = having.index(False)
            fields.fail(f"{name}[{bare}]", f"it has no {column}, others do", f"a {column} for every response")
    return Example(prompt, responses)


def _response(fields: Fields, item: Any, name: str) -> Response:
    columns: dict[str, float] = {}
    if isinstance(item, Mapping) and "role" not in item:
        key = next((key for key in TEXTS if item.get(key) is not None), TEXTS[0])
        columns = _annotations(fields, item, name)
        name, item = f"{name}.{key}", item.get(key)
    if item is None:
        fields.fail(name, "missing", "a response")
    content = fields.as_turns(item, name, "text, or a list of messages")
    fields.not_empty(content, name)
    return Response(content, columns=columns)


def _annotations(fields: Fields, item: Mapping[str, Any], name: str) -> dict[str, float]:
    columns: dict[str, float] = {}
    for aspect, value in (item.get("annotations") or {}).items():
        rating = value.get("Rating", value.get("rating")) if isinstance(value, Mapping) else value
        if rating not in (None, "N/A"):
            columns[f"score/{aspect}"] = fields.as_number(rating, f"{name}.annotations.{aspect}")
    score = next((key for key in SCORES if item.get(key) is not None), None)
    rank = next((key for key in RANKS if item.get(key) is not None), None)
    if score is not None:
        columns["score"] = fields.as_number(item[score], f"{name}.{score}")
    elif columns:
        columns["score"] = sum(columns.values()) / len(columns)
    if rank is not None:
        columns["rank"] = int(fields.as_number(item[rank], f"{name}.{rank}"))
    return columns


def _matches(specimen: Mapping[str, Any]) -> bool:
    return any(_holds_responses(specimen.get(name)) for name in LISTS)


def _holds_responses(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("[")
    return isinstance(value, list | tuple) and len(value) > 0


SCORED_LISTS = Layout(
    "lists",
    "prompt or instruction, and completions: [{response, overall_score or annotations}, …] "
    "or responses with scores or ranks",
    _matches,
    read_list,
)
