"""Links: what a margin costs, as functions of the margins and the comparisons they belong to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.objectives.contrasts import Comparisons, PerComparison
from prefero.objectives.quantities import Column

Link = Callable[[Float[Tensor, "row comparison"], Comparisons], Float[Tensor, "row comparison"]]


def logistic(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """−log σ(z): Bradley and Terry's likelihood."""
    # not softplus(−z): beyond 20 torch takes it for linear, which costs nine digits
    return -F.logsigmoid(margins)


def hinge(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """max(0, 1 − z)."""
    return F.relu(1 - margins)


def rectified(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """max(0, −z), with slope 0 at z = 0."""
    return F.relu(-margins)


def squared(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """z²."""
    return margins.square()


def exponential(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """exp(−z)."""
    return capped(-margins).exp()


def survival(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """σ(−z) = 1 − σ(z): bounded on both sides, so extreme responses lose their pull."""
    return torch.sigmoid(-margins)


def identity(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """The margin itself is the cost: a penalty."""
    return margins


def smoothed(rate: float | PerComparison, link: Link = logistic) -> Link:
    """(1 − ε) ℓ(z) + ε ℓ(−z): labels are wrong with probability ε, which gets no gradient."""

    def cost(margins: Tensor, comparisons: Comparisons) -> Tensor:
        wrong = rate(comparisons).detach() if callable(rate) else rate
        return (1 - wrong) * link(margins, comparisons) + wrong * link(-margins, comparisons)

    return cost


def debiased(rate: float, link: Link = logistic) -> Link:
    """((1 − ε) ℓ(z) − ε ℓ(−z)) / (1 − 2ε): under flips with probability ε, in [0, ½), its mean is ℓ(z)."""

    def cost(margins: Tensor, comparisons: Comparisons) -> Tensor:
        right, wrong = link(margins, comparisons), link(-margins, comparisons)
        return ((1 - rate) * right - rate * wrong) / (1 - 2 * rate)

    return cost


def bernoulli_kl(
    first: Float[Tensor, "row comparison"], second: Float[Tensor, "row comparison"]
) -> Float[Tensor, "row comparison"]:
    """KL((p, 1 − p) ‖ (q, 1 − q)) with p = σ(first), q = σ(second)."""
    right = first.sigmoid() * (F.logsigmoid(first) - F.logsigmoid(second))
    return right + (-first).sigmoid() * (F.logsigmoid(-first) - F.logsigmoid(-second))


def reverse_kl_to(rate: float, normalised: bool = True) -> Link:
    """KL((q, 1 − q) ‖ (1 − ε, ε)), q = σ(z), ε in (0, ½); 1 in the place of 1 − ε if not ``normalised``."""
    logit = math.log1p(-rate) - math.log(rate)
    excess = 0.0 if normalised else math.log1p(-rate)

    def cost(margins: Tensor, comparisons: Comparisons) -> Tensor:
        return bernoulli_kl(margins, torch.full_like(margins, logit)) + excess * margins.sigmoid()

    return cost


def with_ties(threshold: float) -> Link:
    """−log of the ternary likelihood with ties (Rao and Kupper): σ(z − α) for a win,
    (e^{2α} − 1) / ((1 + e^{z+α}) (1 + e^{α−z})) for the examples whose column ``tie`` is set; α > 0."""
    tie = Column("tie")

    def cost(margins: Tensor, comparisons: Comparisons) -> Tensor:
        lost = -F.logsigmoid(margins - threshold)
        tied = lost - F.logsigmoid(-margins - threshold) - math.log(math.expm1(2 * threshold))
        return torch.where(tie(comparisons.batch) > 0, tied, lost)

    return cost


def capped(exponent: Float[Tensor, "..."], room: float = 0.9) -> Float[Tensor, "..."]:
    """The exponent, held where its exponential fills the share ``room`` of its type's range, in logarithms:
    times a usual β it is still finite."""
    limit = room * torch.log(torch.tensor(torch.finfo(exponent.dtype).max, dtype=torch.float64)).item()
    return exponent.clamp(max=limit)


class OfStep(nn.Module):
    """A link that reads statistics of its comparisons over the whole step."""

    whole_step = True

    def mean(self, values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)

    def variance(self, values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        """Unbiased; 0 for fewer than two values."""
        deviation = torch.where(mask, values - self.mean(values, mask), 0)
        return deviation.square().sum() / (mask.sum() - 1).clamp(min=1)

    def deviation(self, values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        variance = self.variance(values, mask)
        # no square root of 0: its slope is infinite, and all margins are 0 where training starts
        return variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
