"""The experiment on rationales: few pairs, decided by one attribute, which the rationale names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.experiments.ranking import Ranked, RankingExperiment
from prefero_lab.papers.text import Made

if TYPE_CHECKING:
    from torch import nn

    from prefero.data.examples import Example
    from prefero.demo.text import TextWorld
    from prefero_lab.papers.paper import Trained

LONGEST = 50
"""Words and marks that both responses of a pair may have, so that a prompt can show them."""


@dataclass(frozen=True)
class RationalesExperiment(RankingExperiment):
    """A :class:`.RankingExperiment` on ``reviews`` whose annotators care for one
    aspect of each category of items, and prefer the one of two reviews that mentions it; that one is valued
    by the measure ``topical``. ``count`` pairs are trained on.

    An arm's ``rationales`` are ``right``, a sentence that names the aspect, or ``wrong``, one that names
    another aspect of the category, drawn for each pair; without them there are none. A rationale answers
    the prompt with both responses behind it, in any order.
    """

    pairs: int = 512
    count: int = 64
    taste: str = "topical"
    label_scale: float = 1e9
    equal: float = 0.5

    @cached_property
    def text_world(self) -> TextWorld:
        from prefero.demo.reviews import REVIEWS

        return replace(REVIEWS, tastes={"topical": lambda prompt, text: mentions(text, deciding(prompt))})

    def make(self, seed: int) -> Ranked:
        made = super().make(seed)
        rows = [row for row in made.rows if row["chosen_score"] > row["rejected_score"]]
        short = [row for row in rows if len(words(row["chosen"])) + len(words(row["rejected"])) <= LONGEST]
        return replace(made, rows=short[: self.count])

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        own = {name: value for name, value in settings.items() if name != "rationales"}
        if "rationales" in settings:
            explained: Any = with_rationales(made.rows, settings["rationales"], seed)
            made = replace(made, rows=explained)
        return super().train(made, own, seed)


def with_rationales(rows: Sequence[Mapping[str, Any]], which: str, seed: int) -> Any:
    """The pairs as examples that say why."""
    import random

    from prefero.data.formats import load_examples

    rng, examples = random.Random(f"rationales {seed}"), load_examples(rows)
    return replace(examples, items=[explained(one, which, rng) for one in examples])


def explained(example: Example, which: str, rng: Any) -> Example:
    """The pair with a rationale that names the deciding aspect, or another one (``wrong``)."""
    from prefero.data.examples import Response

    prompt, aspects = str(example.prompt), aspects_of(str(example.prompt))
    named = aspects[0] if which == "right" else rng.choice(aspects[1:])
    texts = [str(response.content) for response in example.responses]
    shown = " ".join([prompt, *rng.sample(texts, len(texts))])
    rationale = Response(f"the {named}.", "rationale", prompt=shown)
    return replace(example, responses=(*example.responses, rationale))


def aspects_of(prompt: str) -> list[str]:
    """The aspects of the category of the prompt's item; the first is what annotators care for."""
    from prefero.demo.reviews import ASPECTS, CATEGORY

    item = next(word for word in words(prompt) if word in CATEGORY)
    return list(ASPECTS[CATEGORY[item]])


def deciding(prompt: str) -> str:
    return aspects_of(prompt)[0]


def mentions(text: str, aspect: str) -> float:
    return float(aspect in words(text))


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
