"""Win rates: the probability that one model's responses are preferred to another's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

from prefero.data.examples import Text
from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, wilson
from prefero.feedback.judges import Judge
from prefero.generate.sampling import Sample


@dataclass(frozen=True, slots=True)
class WinRate:
    """``rate`` is the mean probability of being preferred, its interval over prompts. ``wins``, ``ties`` and
    ``losses`` count the comparisons judged above, at and below ½."""

    rate: float
    interval: Interval
    wins: int
    ties: int
    losses: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def win_rate(
    judge: Judge, samples: Sequence[Sample], baseline: Sequence[Sample], *, confidence: float = 0.95
) -> WinRate:
    """``samples`` against ``baseline``, one to one, with Wilson's interval over prompts (not over training
    seeds).

    Several samples of a prompt are adjacent, as :func:`~prefero.generate.sampling.sample` returns them; they
    count as one comparison, their mean. Draw the two independently: common noise makes near-equal models
    produce equal texts, and their ties pull the rate towards ½.

    Raises:
        PreferoError: the two do not answer the same prompts in the same order, or there are none.
    """
    if len(samples) != len(baseline):
        raise PreferoError(f"a win rate compares one to one; got {len(samples)} and {len(baseline)} samples.")
    for i, (ours, theirs) in enumerate(zip(samples, baseline, strict=True)):
        if ours.prompt != theirs.prompt:
            raise PreferoError(
                f"samples {i + 1} answer different prompts: {ours.prompt!r} and {theirs.prompt!r}."
            )
    prompts = list(accumulate((a.prompt != b.prompt for a, b in pairwise(samples)), initial=0))
    return win_rate_of(
        [judge(a.prompt, a.text, b.text) for a, b in zip(samples, baseline, strict=True)],
        prompts=prompts,
        confidence=confidence,
    )


def win_rate_of(
    preferences: Sequence[float],
    *,
    prompts: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> WinRate:
    """The win rate of comparisons that are judged already: probabilities of being preferred, 0 to 1. Those
    that share one of ``prompts`` count as one, their mean.

    Raises:
        PreferoError: there are no comparisons, or a number is not a probability.
    """
    for index, preference in enumerate(preferences):
        if not 0 <= preference <= 1:
            raise PreferoError(
                f"comparison {index + 1} was judged {preference}; expected a probability from 0 to 1."
            )
    if not preferences:
        raise PreferoError("a win rate needs at least one comparison; got none.")
    of_prompt: dict[Hashable, list[float]] = {}
    for preference, prompt in zip(preferences, prompts or range(len(preferences)), strict=True):
        of_prompt.setdefault(prompt, []).append(preference)
    rate = fmean(map(fmean, of_prompt.values()))
    return WinRate(
        rate,
        wilson(rate, len(of_prompt), confidence),
        wins=sum(p > 0.5 for p in preferences),
        ties=sum(p == 0.5 for p in preferences),
        losses=sum(p < 0.5 for p in preferences),
    )


@dataclass(frozen=True, slots=True)
class BothOrders:
    """A judge asked in both orders, and the mean of its answers, which cancels its position bias. Zheng et
    al., 2023, arXiv 2306.05685."""

    judge: Judge

    def __call__(self, prompt: Text, first: str, second: str) -> float:
        return (self.judge(prompt, first, second) + 1 - self.judge(prompt, second, first)) / 2


def place_bias(judge: Judge, comparisons: Sequence[tuple[Text, str, str]]) -> float:
    """Position bias: the mean preference for the response shown first, over both orders of each comparison,
    minus ½. 0 for an unbiased judge, ½ for a judge that looks at nothing else."""
    first = [(judge(prompt, a, b) + judge(prompt, b, a)) / 2 for prompt, a, b in comparisons]
    if not first:
        raise PreferoError("a bias needs at least one comparison; got none.")
    return fmean(first) - 0.5
