"""Layouts of several responses to one prompt: lists with scores or ranks (UltraFeedback's and flat ones), two
responses that annotators compared, and solutions marked right or wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.fields import Fields, Layout, first_of

LISTS = ("completions", "responses", "generations", "answers", "candidates")
TEXTS = ("response", "completion", "answer", "text", "content")
SCORES = ("score", "overall_score", "rating", "reward")
RANKS = ("rank", "ranking")

SIDES = (("response1", "response2"), ("response_1", "response_2"), ("response_a", "response_b"))
ANNOTATOR = re.compile(r"annotator_?\d+")
VOTES = {0: 0.5, 1: 1.0, 2: 0.0}
"""The votes that annotators cast, as preferences for the first of two responses."""


def read_list(fields: Fields) -> Example:
    """All responses as unnamed candidates, each with its score or rank.

    An object's score is ``score``, ``overall_score``, ``rating`` or ``reward``, else the mean of the aspects
    in ``annotations``; these stay too, as ``score/helpfulness`` and so on.
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
        key = first_of(item, TEXTS) or TEXTS[0]
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
            number = fields.as_number(item[key], f"{name}.{key}")
            columns[column] = int(number) if column == "rank" else number
    return columns


def _holds_list(specimen: Mapping[str, Any]) -> bool:
    values = [specimen.get(name) for name in LISTS]
    spelled = any(isinstance(value, str) and value.lstrip().startswith("[") for value in values)
    return spelled or any(isinstance(value, list | tuple) and value for value in values)


def read_comparison(fields: Fields) -> Example:
    """Two responses and the votes of annotators; the response with more votes is the chosen one, the first of
    equals. It is a tie unless it has more votes than the other one, and more than there are for a tie."""
    names = next((pair for pair in SIDES if pair[0] in fields or pair[1] in fields), SIDES[0])
    first, second = (_answer(fields, name) for name in names)
    if first == second:
        fields.fail(names[1], f"it equals {names[0]}, so there is nothing to compare", "another response")
    votes = {name: read_vote(fields, name) for name in fields.values if ANNOTATOR.fullmatch(str(name))}
    if not votes:
        fields.fail("annotator1", "the row has no votes", "1, 2 or 0 by one annotator at least")
    swapped = sum(votes.values()) < len(votes) / 2
    if swapped:
        first, second = second, first
        votes = {name: 1 - vote for name, vote in votes.items()}
    cast = Counter(votes.values())
    return Example(
        ({"role": "user", "content": instruction(fields)},),
        (Response(first, "chosen"), Response(second, "rejected")),
        {"tie": cast[1.0] <= max(cast[0.5], cast[0.0]), "preference": sum(votes.values()) / len(votes)},
        votes=votes,
        chosen_second=swapped,
    )


def read_vote(fields: Fields, name: str) -> float:
    """An annotator's preference for the first response: 1, 0, or 0.5 for a tie."""
    expected = "1 (the first is better), 2 (the second) or 0 (a tie)"
    vote = fields.number(name, expected)
    if vote not in VOTES:
        fields.fail(name, f"found {fields.values[name]!r}", expected)
    return VOTES[int(vote)]


def instruction(fields: Fields) -> str:
    """The instruction, and behind an empty line its input, where it has one."""
    name = fields.first(("instruction", "prompt", "question")) or "instruction"
    text, extra = fields.text(name), fields.values.get("input")
    return f"{text}\n\n{fields.text('input')}" if extra else text


def _answer(fields: Fields, name: str) -> str:
    """Text; a bare truth value or number is what an export made of the answer that spelled it."""
    value = fields.require(name, "text")
    return str(value) if isinstance(value, bool | int | float) else fields.text(name)


def read_solutions(fields: Fields) -> Example:
    """All the solutions as labelled candidates under the question."""
    models = [name for name, value in fields.values.items() if _is_solution(value)]
    if not models:
        fields.fail("question", "no field of the row holds a solution", "objects of is_correct and solution")
    responses = []
    for model in models:
        solution, correct = fields.values[model].get("solution"), fields.values[model]["is_correct"]
        if not isinstance(solution, str) or not solution.strip():
            fields.fail(f"{model}.solution", f"found {solution!r}", "the text of a solution")
        good = fields.truth(f"{model}.is_correct", correct)
        responses.append(Response(solution, columns={"label": 1.0 if good else -1.0}))
    return Example(({"role": "user", "content": fields.text("question")},), tuple(responses))


def _is_solution(value: Any) -> bool:
    return isinstance(value, Mapping) and "is_correct" in value


SCORED_LISTS = Layout(
    "lists",
    "prompt or instruction, and completions: [{response, overall_score or annotations}, …] "
    "or responses with scores or ranks",
    read_list,
    fields=("|".join(LISTS),),
    holds=_holds_list,
)
COMPARISONS = Layout(
    "comparisons",
    "instruction, input, response1, response2, annotator1, annotator2, … (1, 2, or 0 for a tie)",
    read_comparison,
    fields=("|".join(name for pair in SIDES for name in pair), ANNOTATOR.pattern),
)
SOLUTIONS = Layout(
    "solutions",
    "question, and for every model an object {is_correct, solution}",
    read_solutions,
    fields=("question",),
    holds=lambda specimen: any(map(_is_solution, specimen.values())),
)
