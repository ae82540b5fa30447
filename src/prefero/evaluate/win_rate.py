"""How often one model's responses are preferred to another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, wilson
from prefero.feedback.judges import Judge
from prefero.feedback.sampling import Sample


@dataclass(frozen=True, slots=True)
class WinRate:
    """``rate`` is the mean probability of being preferred, a tie counted ½.

    ``wins``, ``ties`` and ``losses`` count the comparisons judged above, at and below ½.
    """

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
    """``samples`` against ``baseline``, one comparison a prompt, with Wilson's interval over prompts.

    The two should be drawn independently: common noise makes near-equal models produce equal texts, and their
    ties pull the rate towards ½. The interval speaks of new prompts and new samples, not of models trained
    again with another seed.

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
    return win_rate_of(
        [judge(a.prompt, a.text, b.text) for a, b in zip(samples, baseline, strict=True)],
        confidence=confidence,
    )


def win_rate_of(preferences: Sequence[float], *, confidence: float = 0.95) -> WinRate:
    """The win rate of comparisons that are judged already: probabilities of being preferred, 0 to 1.

    Raises:
        PreferoError: there are none, or one is no probability.
    """
    for i, preference in enumerate(preferences):
        if not 0 <= preference <= 1:
            raise PreferoError(
                f"comparison {i + 1} was judged {preference}; expected a probability from 0 to 1."
            )
    if not preferences:
        raise PreferoError("a win rate needs at least one comparison; got none.")
    rate = fmean(preferences)
    return WinRate(
        rate,
        wilson(rate, len(preferences), confidence),
        wins=sum(p > 0.5 for p in preferences),
        ties=sum(p == 0.5 for p in preferences),
        losses=sum(p < 0.5 for p in preferences),
    )
