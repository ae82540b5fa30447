"""Weights of comparisons: slots that any method with comparisons of responses can take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Column, Constant, Logp, Measured, Quantity
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED

Alignment = Literal["sampled", "greedy", "none"]


def on_policy_likelihood(alignment: Alignment = "sampled") -> Quantity:
    """log w(y), without a gradient: how likely the policy is to write the response, per token.

    The mean over tokens of log π(token) less what the policy's own text would score there: log Σ p² for
    sampled text, log max p for greedy text. Typical on-policy text has log w near 0. Zhou et al., 2024, arXiv
    2406.11827.
    """
    per_token: Quantity = Logp()
    if alignment != "none":
        per_token = per_token - Measured(LOG_SUM_P_SQUARED if alignment == "sampled" else LOG_MAX_P)
    return per_token.mean().detach()


def wpo(
    alignment: Alignment = "sampled", clamp: Positive | None = 1.0
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """WPO's weight of a comparison: the product of w(y) over its responses, at most ``clamp``.

    The authors' code clamps the product at 1; TRL does not (``clamp=None``).
    """
    likelihood = on_policy_likelihood(alignment)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        product = comparisons.total(likelihood).exp()
        return product if clamp is None else product.clamp(max=clamp)

    return weight


def score_gap(
    scale: NonNegative = 1.0, shape: Literal["sigmoid", "linear"] = "sigmoid"
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """OPTune's weight of a comparison: σ(scale · (s_w − s_l)), how sure Bradley and Terry are of the label,
    or the scaled gap itself. Chen et al., 2024, arXiv 2406.07657."""
    score = Column("score")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        gap = scale * comparisons.gap(score)
        return gap.sigmoid() if shape == "sigmoid" else gap

    return weight


def given() -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """The example's own weight, its column ``weight``; the mean of the two where responses of different
    examples meet. Weights are not normalised: the loss is Σ w ℓ over the number of examples."""
    column = Column("weight")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        if not comparisons.contrast.whole_step:
            return column(comparisons.batch)
        return comparisons.total(column) / comparisons.total(Constant(1.0)).clamp(min=1)

    return weight


def exponential_gain(score: Quantity) -> Quantity:
    """2^s − 1, for scores in [0, 1]."""
    return score.map(lambda values: torch.expm1(values * math.log(2)))


def logarithmic_discount(rank: Quantity) -> Quantity:
    """ln(1 + τ), for places τ from 1."""
    return rank.map(torch.log1p)


def discounted_gain(
    score: Quantity, rank: Quantity
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """|G_i − G_j| |1/D_i − 1/D_j|: what exchanging two responses of a ranking would change of its discounted
    cumulative gain, with the :func:`exponential_gain` of their scores and the :func:`logarithmic_discount` of
    their places. Without a gradient.

    Wang et al., 2018, The LambdaLoss framework; for preferences Liu et al., 2024, arXiv 2402.01878.
    """
    gain, share = exponential_gain(score), logarithmic_discount(rank).map(torch.reciprocal)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (comparisons.gap(gain).abs() * comparisons.gap(share).abs()).detach()

    return weight
