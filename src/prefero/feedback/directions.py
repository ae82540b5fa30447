"""Preferences as directions in the space of several rewards, told to the model as numbers.

Wang et al., 2024, arXiv 2402.18571 (directional preference alignment).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prefero.feedback.pairing import known

Direction = tuple[float, ...]


def direction(degrees: float) -> Direction:
    """(cos, sin) of an angle: how much of the first of two rewards is wanted, and of the second."""
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def prompt_weights(of: Direction) -> tuple[int, ...]:
    """The direction as it stands in a prompt: hundredths, rounded."""
    return tuple(round(100 * part) for part in of)


def along(rewards: Sequence[Sequence[float]], of: Direction) -> list[float]:
    """vᵀ r of each candidate. The rewards' scales must be comparable."""
    return [math.fsum(v * r for v, r in zip(of, reward, strict=True)) for reward in rewards]


def best_along(rewards: Sequence[Sequence[float]], of: Direction) -> int:
    """The candidate to fine-tune on together with the direction; of equal ones the first."""
    scores = known(along(rewards, of))
    return scores.index(max(scores))


def helpsteer_score(score: float) -> float:
    """HelpSteer's 0 to 4 on the scale of 0 to 100: 20 s + 10."""
    return 20 * score + 10


def ultrafeedback_score(score: float) -> float:
    """UltraFeedback's 1 to 10 on the scale of 0 to 100 (the natural reading; the paper does not say)."""
    return 10 * score
