"""Layouts of several responses to one prompt: lists with scores or ranks (UltraFeedback's and flat ones),
neighbouring rows that rate responses to one prompt, and solutions marked right or wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.files import Row
from prefero.data.formats.candidates import (
    CHOICES,
    LISTS,
    Family,
    has_name,
    list_of_responses,
    listed,
    place_of,
    refuse_several,
    rivals,
    told_by,
    writers_of,
)
from prefero.data.formats.conversations import with_responses
from prefero.data.formats.fields import TOOLS, Fields, Layout, is_blank, look, number_of
from prefero.data.formats.images import IMAGE_FIELDS
from prefero.data.formats.names import RANKS, SCORES, SINGLE, TEXTS, WRITERS, first_of_prompts
from prefero.data.formats.responses import ASPECTS, as_response, read_response, refuse_silence
from prefero.data.schema import OTHER_PROMPTS
from prefero.errors import PreferoError

BEST = ("best", "best_response", "best_id", "best_index")
"""Fields that say which of several responses is the best one, besides those that choose from two."""

RATED = ("response", "completion", "answer", "output")
"""The fields of the response that a row rates."""

HELPFULNESS = "helpfulness"
"""The rating that is the score."""

QUESTION = (
    *sorted(TEXTS),
    *TOOLS,
    *IMAGE_FIELDS,
    *(part.field for part in OTHER_PROMPTS.values()),
    "chat_template_kwargs",
)
"""The fields that belong to what is asked."""


def read_list(fields: Fields) -> Example:
    """All responses as unnamed candidates, each with its score or rank.

    An object's score is ``score``, ``overall_score``, ``rating`` or ``reward``, else the mean of the aspects
    in ``annotations``; these stay too, as ``score/helpfulness`` and so on.
    """
    name = list_of_responses(fields)
    items = fields.list(name, "a list of responses, texts or objects that hold one")
    _refuse_steps(fields, name, items)
    example = _candidates(fields, name, items)
    if len(items) < 2 and "score" not in example.responses[0].columns:
        fields.fail(name, f"{len(items)} response", "two responses or more, or one that has a score")
    return example


def _refuse_steps(fields: Fields, name: str, items: Sequence[Any]) -> None:
    """Raises :class:`PreferoError` for steps of one answer, each with its label, as TRL has them."""
    labels = fields.look("labels")
    if name == "completions" and isinstance(labels, list | tuple) and len(labels) == len(items):
        fields.contradict(
            name,
            "labels stand beside it, so that it holds the steps of one answer, each right or wrong, and no "
            "rival responses",
            "pairs of a right and a wrong step (prompt, initial_reason_steps, chosen, rejected), made with "
            "map (data.map); where they are rival responses, --columns label=labels reads which are good",
        )


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
    """Three or more responses in fields of their own, with their scores or ranks beside, or with a field that
    names the best of them: then the others are as good as each other."""
    found = rivals(fields.values, fields.habits)
    if len(found) > 1:
        refuse_several(fields, found)
    if not found or len(found[0].names) < 3:
        fields.fail("response_1", "fewer than three responses", "response_1, response_2, response_3, …")
    family = found[0]
    responses = [read_response(fields, name) for name in family.names]
    refuse_silence(fields, family.names, responses)
    columns: dict[str, Sequence[float]] = {}
    for column, stems in (("score", SCORES), ("rank", RANKS)):
        for beside in (names for stem in stems for names in family.beside(stem)):
            if column not in columns and all(name in fields for name in beside):
                columns[column] = [fields.number(name) for name in beside]
    if not columns and (best := _best(fields, family)) is not None:
        columns["rank"] = [int(place != best) for place in range(len(responses))]
    for column, numbers in columns.items():
        responses = [
            replace(response, columns={**response.columns, column: number})
            for response, number in zip(responses, numbers, strict=True)
        ]
    return with_responses(
        fields, family.names, responses, conversational=first_of_prompts(fields.values) != "prompt"
    )


def _best(fields: Fields, family: Family) -> int | None:
    """The place of the response that a field calls the best, None where no field does in any of the first
    rows."""
    marks = {float(mark): place for place, mark in enumerate(family.marks) if mark.isdecimal()}
    writers = writers_of(fields.values, family)

    def place(value: Any) -> int | None:
        number = number_of(value)
        if number is None or has_name(value, writers):
            return place_of(value, family, writers)
        return marks.get(number)

    for name in (*CHOICES, *BEST):
        numbers, words = fields.habits.numbers.get(name, frozenset()), fields.habits.words.get(name, ())
        if all(place(told) is None for told in (fields.look(name), *numbers, *words)):
            continue
        best = place(fields.get(name))
        problem = (
            name,
            f"found {fields.look(name)!r}; the first rows have {', '.join(map(str, (*numbers, *words)))}",
            f"one of {', '.join((*family.marks, *family.names))}",
        )
        if not numbers <= set(marks) and not has_name(fields.look(name), writers):
            fields.contradict(*problem)
        if best is None:
            fields.fail(*problem)
        return best
    return None


def gather(rows: Iterator[Row]) -> Iterator[Row]:
    """Neighbouring rows of one question as one row with the list of their responses.

    It stands where the first of them does, and has their other fields: those in which they differ under
    names that say so, as nothing can be made of them. Rows whose response or ratings cannot be read stay
    alone, with their problem.
    """
    for _, group in groupby(rows, key=_question):
        good = []
        for row in group:
            if problem := row.problem or _problem(row):
                yield replace(row, problem=problem)
            else:
                good.append(row)
        if good:
            yield _joined(good)


def _question(row: Row) -> str:
    """All that belongs to the question of a row, whichever of it is read: rows with another context ask
    something else. A row without any is one of its own."""
    if first_of_prompts(row.fields) is None:
        return row.origin
    asked = {name: held for name in QUESTION if not is_blank(held := look(row.fields, name))}
    return _written(asked)


def _written(value: Any) -> str:
    """A value of a row as text, the same for equal values; arrays and images by their numbers."""
    return json.dumps(
        value, default=lambda held: held.tobytes().hex() if hasattr(held, "tobytes") else repr(held)
    )


def _problem(row: Row) -> str:
    """Why the response of a row or its ratings cannot be read, empty where they can."""
    fields = Fields(row)
    name = fields.first(RATED) or RATED[0]
    try:
        refuse_silence(fields, [name], [read_response(fields, name)])
        for aspect in ASPECTS:
            if aspect == HELPFULNESS or (aspect in fields and fields.look(aspect) != "N/A"):
                fields.number(aspect)
    except PreferoError as error:
        return str(error)
    return ""


def _joined(rows: Sequence[Row]) -> Row:
    """Rows of one question as one."""
    names = dict.fromkeys(name for row in rows for name in row.fields)
    own = [name for name in names if name in (*RATED, *ASPECTS, *WRITERS)]
    asked = {name.partition(".")[0] for name in QUESTION}
    fields: dict[str, Any] = {}
    for name in (name for name in names if name not in own):
        held = [row.fields.get(name) for row in rows]
        if name in asked or len(set(map(_written, held))) == 1:
            fields[name] = held[0]
        else:
            fields[f"{name} (not the same in all rows of the question)"] = held
    fields["responses"] = [{name: row.fields.get(name) for name in own} for row in rows]
    return replace(rows[0], fields=fields, joined=tuple(row.origin for row in rows[1:]))


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


def _holds_numbered(specimen: Mapping[str, Any]) -> bool:
    """Whether a row has three or more responses; beside one that stands alone they need scores or ranks."""
    found = [family for family in rivals(specimen, told_by(specimen)) if len(family.names) > 2]
    if not any(isinstance(specimen.get(name), str) for name in SINGLE):
        return bool(found)
    beside = (names for family in found for stem in (*SCORES, *RANKS) for names in family.beside(stem))
    return any(set(names) <= set(specimen) for names in beside)


SCORED_LISTS = Layout(
    "lists",
    "prompt or instruction, and completions: [{response, overall_score or annotations}, …] "
    "or responses with scores or ranks",
    read_list,
    fields=("|".join(LISTS),),
    holds=lambda specimen: bool(listed(specimen)),
)
NUMBERED_LISTS = Layout(
    "numbered",
    "prompt, response_1, response_2, response_3, … and score_1, score_2, … or rank_1, rank_2, … or winner",
    read_numbered,
    without="chosen|rejected",
    holds=_holds_numbered,
)
RATED_ROWS = Layout(
    "ratings",
    "prompt, response, helpfulness, correctness, …; neighbouring rows of one prompt are compared",
    read_rated,
    fields=("|".join(RATED), HELPFULNESS),
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
