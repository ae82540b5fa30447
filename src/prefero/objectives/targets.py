"""Targets for any method with comparisons of responses: margins that a better response must win by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Column, Length, Quantity
from prefero.objectives.ranges import NonNegative

Target = Callable[[Comparisons], Float[Tensor, "row comparison"]]


Offset = Literal["log", "identity", "log_ratio"]


def score_gap(alpha: NonNegative = 1.0, offset: Offset = "log") -> Target:
    """α f(s_w − s_l): the better the better response is scored, the more it must win by; f is the logarithm
    or nothing. ``log_ratio`` is α log(s_w / s_l), of positive scores. What a logarithm is taken of is held at
    1e-6 and above. Amini et al., 2024, arXiv 2402.10571, eq. 5."""
    score: Quantity = Column("score")
    if offset == "log_ratio":
        score = score.map(lambda values: values.clamp(min=1e-6).log())

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        gap = comparisons.gap(score)
        return alpha * (gap.clamp(min=1e-6).log() if offset == "log" else gap)

    return target


def length_gap(alpha: NonNegative = 0.02) -> Target:
    """−α (|y_w| − |y_l|): what a preference for length explains need not be won, α in reward units per token.
    Park et al., 2024, arXiv 2403.19159."""
    length = Length()

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return -alpha * comparisons.gap(length)

    return target
