"""Weights of comparisons: slots that any method with comparisons of responses can take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Column, Logp, Measured, Quantity
from prefero.objectives.ranges import Positive
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
    scale: Positive = 1.0, shape: Literal["sigmoid", "linear"] = "sigmoid"
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """OPTune's weight of a comparison: σ(scale · (s_w − s_l)), how sure Bradley and Terry are of the label,
    or the scaled gap itself. Chen et al., 2024, arXiv 2406.07657."""
    score = Column("score")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        gap = scale * comparisons.gap(score)
        return gap.sigmoid() if shape == "sigmoid" else gap

    return weight


def discounted_gain(
    gain: Quantity, rank: Quantity
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """|G_i − G_j| |1/ln(1 + τ_i) − 1/ln(1 + τ_j)|: what exchanging two responses of a ranking would change of
    its discounted cumulative gain; τ is 1 for the first. Without a gradient.

    Wang et al., 2018, The LambdaLoss framework; for preferences Liu et al., 2024, arXiv 2402.01878.
    """
    discount = rank.map(lambda place: 1 / place.log1p())

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (comparisons.gap(gain).abs() * comparisons.gap(discount).abs()).detach()

    return weight
