"""Solutions of several models to one question, each marked correct or not, as GSM8K publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.annotations import truth
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout


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
        good = truth(fields, f"{model}.is_correct", correct)
        responses.append(Response(solution, columns={"label": 1.0 if good else -1.0}))
    return Example(({"role": "user", "content": fields.text("question")},), tuple(responses))


def _is_solution(value: Any) -> bool:
    return isinstance(value, Mapping) and "is_correct" in value


def _matches(specimen: Mapping[str, Any]) -> bool:
    return "question" in specimen and any(map(_is_solution, specimen.values()))


SOLUTIONS = Layout(
    "solutions", "question, and for every model an object {is_correct, solution}", _matches, read_solutions
)
