"""Responses sorted by a judge's score into those that may be chosen and those that may be rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefero.feedback.pairing import known


@dataclass(frozen=True, slots=True)
class Pools:
    """The places of the responses to one prompt that a chosen and a rejected one are drawn from."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def usable(self) -> bool:
        """Whether there are both."""
        return bool(self.chosen and self.rejected)


def pools(scores: Sequence[float], threshold: float = 3) -> Pools:
    """At or above the threshold, and below it. Zhang et al., 2024, arXiv 2404.01258, draw one of each for
    every usable prompt, on a scale of 1 to 5 (the threshold is from memory)."""
    places = range(len(known(scores)))
    return Pools(
        tuple(place for place in places if scores[place] >= threshold),
        tuple(place for place in places if scores[place] < threshold),
    )
