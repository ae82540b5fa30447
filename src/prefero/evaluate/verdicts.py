"""The verdicts of a judge on responses to the same prompts, whichever way it judges: by scores of each, or by
comparing two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefero.data.examples import Example, Text, spoken
from prefero.errors import PreferoError
from prefero.evaluate.judges import ScoringJudge, reads_examples
from prefero.evaluate.win_rate import BothOrders

Judging = ScoringJudge | BothOrders

Readable = Any
"""A response as a judge reads it: a text, or an image of Pillow's."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """``preferences`` are how probably each response is preferred to its baseline, where equal scores count
    half; ``scores`` are those of the responses, from a judge that gives some."""

    preferences: list[float]
    scores: list[float] | None


def baseline_scores(
    judge: Judging, prompts: Sequence[Text | Example], responses: Sequence[Readable]
) -> list[float] | None:
    """The scores of the baseline's responses; None for a judge that compares two."""
    return None if isinstance(judge, BothOrders) else scores_of(judge, prompts, responses)


def verdicts(
    judge: Judging,
    prompts: Sequence[Text | Example],
    ours: Sequence[Readable],
    theirs: Sequence[Readable],
    their_scores: Sequence[float] | None,
) -> Verdicts:
    """The verdicts on our responses against theirs, whose scores are :func:`baseline_scores`."""
    if isinstance(judge, BothOrders):
        shown = _shown(judge, prompts)
        return Verdicts([judge(*triple) for triple in zip(shown, ours, theirs, strict=True)], None)
    scores = scores_of(judge, prompts, ours)
    compared = zip(scores, their_scores or (), strict=True)
    return Verdicts([0.5 if our == their else float(our > their) for our, their in compared], scores)


def scores_of(
    judge: ScoringJudge, prompts: Sequence[Text | Example], responses: Sequence[Readable]
) -> list[float]:
    """The scores of responses. Raises :class:`PreferoError` for one that is not a number."""
    scores = judge(_shown(judge, prompts), responses)
    for index, score in enumerate(scores):
        if math.isnan(score):
            raise PreferoError(f"the judge's score of response {index + 1} is not a number.")
    return scores


def try_judge(
    judge: Judging, prompt: Text | Example, response: Readable | None, other: Readable = "No."
) -> None:
    """Let the judge judge one prompt, with a response of the data if there is one, so that a judge that
    cannot is known before responses are drawn."""
    responses = [response or "Yes.", other]
    if isinstance(judge, BothOrders):
        judge(*_shown(judge, [prompt]), *responses)
    else:
        scores_of(judge, [prompt, prompt], responses)


def chosen_text(example: Example) -> str | None:
    """The text of the chosen response of an example, the last turn of a conversation; None without one."""
    answers = [spoken(each.content) for each in example.responses if each.role == "chosen"]
    return answers[0][-1] if answers and answers[0] else None


def _shown(judge: Judging, prompts: Sequence[Text | Example]) -> list[Any]:
    """The prompts as a judge reads them: with their rows, or alone."""
    if reads_examples(judge):
        return list(prompts)
    return [prompt.prompt if isinstance(prompt, Example) else prompt for prompt in prompts]
