"""World ``instructions``: short notes, four instructions each, and annotators who care for other things.

    write a warm note on tea for guests in points with two facts, mention aroma.
    → - lovely aroma. - of course, gentle foam.

Gold is a vector (:func:`objectives`): the number of facts, the tone, the fact asked for by name, and the
form. The reward is its mean. Filler phrases, and every line more than was asked, earn nothing, and cost
nothing or little: they are how a policy gets longer if its annotators like length. ``tastes`` are annotators
who weigh the same objectives otherwise, or look at the length as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from prefero.demo.start import StartRecipe
from prefero.demo.text import TextMeasure, TextWorld
from prefero_lab.worlds.instruction_grammar import (
    CATEGORY,
    FACTS,
    prompts,
    read_note,
    read_prompt,
    vocabulary,
    write_note as write,
)

OBJECTIVES = ("content", "tone", "named", "form")
SURPLUS_COST, BROKEN_PENALTY = 0.15, 1.0
PER_TOKEN = 0.025
"""Score per token of an annotator who cares for length."""


def objectives(prompt: str, text: str) -> dict[str, float]:
    """Degree to which each instruction is followed, 1 for completely.

    ``content``: the share of the facts asked for, distinct and true of the topic, less 0.15 for every other
    line (down to -1); ``tone`` and ``form``: the share of the lines in the one asked for; ``named``: whether
    the fact asked for by name is among the true ones.
    """
    asked, lines = read_prompt(prompt), read_note(text).lines
    if asked is None or not lines:
        return dict.fromkeys(OBJECTIVES, 0.0)
    own = FACTS[CATEGORY[asked.topic]]
    true = {line.fact for line in lines if line.fact in own and line.topic in (None, asked.topic)}
    counted = min(len(true), asked.count)
    content = counted / asked.count - SURPLUS_COST * (len(lines) - counted)
    return {
        "content": max(-1.0, content),
        "tone": sum(line.tone == asked.tone for line in lines) / len(lines),
        "named": float(asked.fact in true),
        "form": sum(line.form == asked.form for line in lines) / len(lines),
    }


def taste(weights: Mapping[str, float], per_token: float = 0.0) -> TextMeasure:
    """The score of an annotator who weighs the objectives, takes a point from broken text, and gives
    ``per_token`` for length."""

    def score(prompt: str, text: str) -> float:
        values = objectives(prompt, text)
        broken = 0.0 if read_note(text).valid else BROKEN_PENALTY
        return (
            sum(weights[name] * values[name] for name in weights) - broken + per_token * words(prompt, text)
        )

    return score


def words(prompt: str, text: str) -> float:
    """The length in words and marks, which are tokens here."""
    return float(len(re.findall(r"\w+|[^\w\s]", text)))


def fillers(prompt: str, text: str) -> float:
    """Number of lines that begin with an empty phrase."""
    return float(sum(line.filled for line in read_note(text).lines))


def _objective(name: str) -> TextMeasure:
    return lambda prompt, text: objectives(prompt, text)[name]


EVEN = dict.fromkeys(OBJECTIVES, 1 / len(OBJECTIVES))

INSTRUCTIONS = TextWorld(
    name="instructions",
    summary="Notes to four instructions each; gold is how well they are followed, minus one if broken.",
    words=vocabulary(),
    prompts=prompts,
    write=write,
    gold=taste(EVEN),
    measures={
        "valid": lambda prompt, text: float(read_note(text).valid),
        **{name: _objective(name) for name in OBJECTIVES},
        "fillers": fillers,
    },
    tastes={
        "stylist": taste({"content": 0.1, "tone": 0.7, "named": 0.1, "form": 0.1}),
        "checker": taste({"content": 0.1, "tone": 0.1, "named": 0.7, "form": 0.1}),
        "fond of length": taste(EVEN, PER_TOKEN),
        "brief": taste(EVEN, -PER_TOKEN),
    },
    max_new_tokens=60,
    label_scale=6.0,
    recipe=StartRecipe(max_length=96),
)
