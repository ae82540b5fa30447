"""Several scores of a response: politeness, safety, … made one, and fitted by a reward model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weighted_sum(
    aspects: Float[Tensor, "*rest aspect"], weights: Float[Tensor, " aspect"]
) -> Float[Tensor, "*rest"]:
    """Σ_k w_k r_k: the aspects as one score, before anything is normalised. Li et al., 2025, arXiv
    2503.21819."""
    return (aspects * weights).sum(-1)


def regression_loss(
    predictions: Float[Tensor, "*rest aspect"], targets: Float[Tensor, "*rest aspect"]
) -> Float[Tensor, "*rest"]:
    """The mean squared error over the aspects of each response, which the reward model of several aspects
    minimises."""
    return (predictions - targets).square().mean(-1)
