"""Judges: what says how good a response is, or which of two is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from prefero.data.examples import Text
from prefero.errors import PreferoError
from prefero.generate.sampling import Sample

Score = Callable[..., float]
"""(prompt, text) → how good the text is; higher is better."""


class Judge(Protocol):
    """Compares two responses to one prompt."""

    def __call__(self, prompt: Text, first: str, second: str) -> float:
        """The probability that ``first`` is preferred to ``second``: 0 to 1, ½ for a tie."""
        ...


@dataclass(frozen=True, slots=True)
class ByScore:
    """The judge that prefers the higher score; equal scores are a tie."""

    score: Score

    def __call__(self, prompt: Text, first: str, second: str) -> float:
        gap = self.score(prompt, first) - self.score(prompt, second)
        if math.isnan(gap):
            raise PreferoError(f"the scores of the two responses to {prompt!r} are no numbers that compare")
        return 0.5 if gap == 0 else float(gap > 0)


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample and what a judge gives it."""

    sample: Sample
    score: float


def score_all(score: Score, samples: Sequence[Sample]) -> list[Scored]:
    """``samples`` with their scores."""
    return [Scored(sample, score(sample.prompt, sample.text)) for sample in samples]
