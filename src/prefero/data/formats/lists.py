"""Layouts of several responses to one prompt: lists with scores or ranks (UltraFeedback's and flat ones),
neighbouring rows that rate responses to one prompt, and solutions marked right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.files import Row
from prefero.data.formats.conversations import with_responses
from prefero.data.formats.fields import Fields, Layout
from prefero.data.formats.names import NUMBERED, first_of_prompts, numbered_names
from prefero.data.formats.responses import ASPECTS, RANKS, SCORES, as_response, read_response, refuse_silence

LISTS = (
    "completions",
    "responses",
    "generations",
    "answers",
    "candidates",
    "outputs",
    "summaries",
    "candidates_completions",
    "all_generated_responses",
)

RATED = ("response", "completion", "answer", "output")
"""The fields of the response that a row rates."""


def read_list(fields: Fields) -> Example:
    """All responses as unnamed candidates, each with its score or rank.

    An object's score is ``score``, ``overall_score``, ``rating`` or ``reward``, else the mean of the aspects
    in ``annotations``; these stay too, as ``score/helpfulness`` and so on.
    """
    name = fields.first(LISTS) or LISTS[0]
    items = fields.list(name, "a list of responses, texts or objects that hold one")
    example = _candidates(fields, name, items)
    if len(items) < 2 and "score" not in example.responses[0].columns:
        fields.fail(name, f"{len(items)} response", "two responses or more, or one that has a score")
    return example


def _candidates(fields: Fields, name: str, items: Sequence[Any]) -> Example:
    names = [f"{name}[{place}]" for place in range(len(items))]
    responses = [as_response(fields, item, own) for item, own in zip(items, names, strict=True)]
    refuse_silence(fields, names, responses)
    for column in ("score", "rank"):
        having = [column in response.columns for response in responses]
        if any(having) and not all(having):
            bare = names[having.index(False)]
            fields.fail(bare, f"it has no {column}, others do", f"a {column} for every response")
    conversational = first_of_prompts(fields.values) != "prompt"
    return with_responses(fields, names, responses, conversational=conversational)


def read_numbered(fields: Fields) -> Example:
    """Three or more responses in fields of their own, with their scores or ranks beside."""
    names = numbered_names(fields.values)
    if not names:
        fields.fail("response_1", "fewer than three responses", "response_1, response_2, response_3, …")
    responses = [read_response(fields, name) for name in names]
    refuse_silence(fields, names, responses)
    for column, stems in (("score", SCORES), ("rank", RANKS)):
        for beside in (tuple(numbered_beside(stem, names)) for stem in stems):
            if all(name in fields for name in beside):
                numbers = [fields.number(name) for name in beside]
                responses = [
                    replace(response, columns={**response.columns, column: number})
                    for response, number in zip(responses, numbers, strict=True)
                ]
    return with_responses(
        fields, names, responses, conversational=first_of_prompts(fields.values) != "prompt"
    )


def numbered_beside(stem: str, names: Sequence[str]) -> Iterator[str]:
    """The fields that tell something of each of the responses: ``score_1`` of ``response_1``."""
    for name in names:
        parts = NUMBERED.fullmatch(name)
        assert parts is not None
        separator = parts[1][len(parts[1].rstrip(" _-")) :]
        yield f"{stem}{separator}{parts[2]}"


def gather(rows: Iterator[Row]) -> Iterator[Row]:
    """Neighbouring rows of one prompt as one row with the list of their responses.

    It stands where the first of them does, and has the other fields of the first.
    """

    def prompt(row: Row) -> str:
        name = first_of_prompts(row.fields)
        return row.problem or f"{name}: {row.fields.get(name) if name else row.origin!r}"

    for _, group in groupby(rows, key=prompt):
        first, *others = group
        if first.problem:
            yield first
            continue
        names = [name for name in first.fields if name in (*RATED, *ASPECTS)]
        items = [{name: row.fields.get(name) for name in names} for row in (first, *others)]
        shared = {name: value for name, value in first.fields.items() if name not in names}
        joined = tuple(row.origin for row in others)
        yield replace(first, fields={**shared, "responses": items}, joined=joined)


def read_rated(fields: Fields) -> Example:
    """Responses of one prompt, each rated in several aspects; the score is the helpfulness."""
    return _candidates(fields, "responses", fields.list("responses", "rated responses"))


def read_solutions(fields: Fields) -> Example:
    """All the solutions as labelled candidates under the question."""
    models = [str(name) for name, value in fields.values.items() if _is_solution(value)]
    if not models:
        fields.fail("question", "no field of the row holds a solution", "objects of is_correct and solution")
    responses = []
    for model in models:
        held = fields.look(model)
        solution, correct = (fields.take(model, held, key) for key in ("solution", "is_correct"))
        if not isinstance(solution, str) or not solution.strip():
            fields.fail(f"{model}.solution", f"found {solution!r}", "the text of a solution")
        good = fields.truth(f"{model}.is_correct", correct)
        responses.append(Response(solution, columns={"label": 1.0 if good else -1.0}))
    return Example(({"role": "user", "content": fields.text("question")},), tuple(responses))


def _is_solution(value: Any) -> bool:
    return isinstance(value, Mapping) and "is_correct" in value


def _holds_list(specimen: Mapping[str, Any]) -> bool:
    values = [specimen.get(name) for name in LISTS]
    spelled = any(isinstance(value, str) and value.lstrip().startswith("[") for value in values)
    return spelled or any(isinstance(value, list | tuple) and value for value in values)


SCORED_LISTS = Layout(
    "lists",
    "prompt or instruction, and completions: [{response, overall_score or annotations}, …] "
    "or responses with scores or ranks",
    read_list,
    fields=("|".join(LISTS),),
    holds=_holds_list,
)
NUMBERED_LISTS = Layout(
    "numbered",
    "prompt, response_1, response_2, response_3, … and score_1, score_2, … or rank_1, rank_2, …",
    read_numbered,
    without="chosen|rejected",
    holds=lambda specimen: bool(numbered_names(specimen)),
)
RATED_ROWS = Layout(
    "ratings",
    "prompt, response, helpfulness, correctness, …; neighbouring rows of one prompt are compared",
    read_rated,
    fields=("|".join(RATED), "helpfulness"),
    without="chosen|rejected",
    gather=gather,
)
SOLUTIONS = Layout(
    "solutions",
    "question, and for every model an object {is_correct, solution}",
    read_solutions,
    fields=("question",),
    holds=lambda specimen: any(map(_is_solution, specimen.values())),
)
