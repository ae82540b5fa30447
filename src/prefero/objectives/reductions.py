"""Reductions: from losses ``[row comparison]`` to terms whose totals and counts add up over micro-batches.

A reduction receives losses that are 0 where no comparison exists. A term's ``count`` is made of masks and
columns only, so the denominators of an optimizer step are known before any model has run; what cannot keep
that promise is not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.contrasts import Comparisons, masked_logsumexp
from prefero.objectives.quantities import Length
from prefero.objectives.ranges import AtLeastOne, Positive


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of an objective: ``total / count`` once both are added up over the optimizer step.

    ``exact`` says that they may be: the term is a sum over examples. Otherwise the objective must see the
    whole step at once. ``values`` has the total's parts, one number a row, for looking at.
    """

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]
    exact: bool = True
    values: Float[Tensor, " row"] | None = None


Reduction = Callable[[Float[Tensor, "row comparison"], Comparisons], list[Term]]


def mean_of_sums(losses: Tensor, comparisons: Comparisons) -> list[Term]:
    """The sum over the comparisons of an example, averaged over the examples that have any."""
    values = losses.sum(1)
    return [Term(values.sum(), number(comparisons.mask.any(1), losses), True, values)]


def mean_of_means(losses: Tensor, comparisons: Comparisons) -> list[Term]:
    """The mean over the comparisons of an example, averaged over the examples that have any."""
    values = losses.sum(1) / comparisons.mask.sum(1).clamp(min=1)
    return [Term(values.sum(), number(comparisons.mask.any(1), losses), True, values)]


def mean_of_all(losses: Tensor, comparisons: Comparisons) -> list[Term]:
    """The mean over all comparisons, whichever example they belong to."""
    return [Term(losses.sum(), number(comparisons.mask, losses), True, losses.sum(1))]


def mean_of_tokens(losses: Tensor, comparisons: Comparisons) -> list[Term]:
    """Losses summed over the tokens of a response, averaged over all tokens of the compared responses."""
    tokens = comparisons.total(Length())
    return [Term(losses.sum(), tokens.sum(), True, losses.sum(1))]


def soft_minimum(temperature: Positive = 1.0, micro_batch: AtLeastOne | None = None) -> Reduction:
    """−β′ log of the mean of exp(−ℓ/β′) over all comparisons: between their minimum (β′ → 0) and mean (β′ →
    ∞). With ``micro_batch`` it is taken over that many comparisons at a time, in their order, and averaged.

    Not exact: it sees the whole optimizer step.
    """

    def reduce(losses: Tensor, comparisons: Comparisons) -> list[Term]:
        flat, mask = losses.flatten(), comparisons.mask.flatten()
        size = max(len(flat), 1) if micro_batch is None else int(micro_batch)
        if micro_batch is not None:
            flat, mask = flat[mask], mask[mask]
        parts = [
            masked_logsumexp(-part / temperature, there)[0] - number(there, losses).clamp(min=1).log()
            for part, there in zip(flat.split(size), mask.split(size), strict=True)
        ]
        count = number(comparisons.mask, losses)
        loss = -temperature * torch.stack(parts).mean()
        return [Term(loss * count, count, False, losses.sum(1))]

    return reduce


def number(mask: Tensor, like: Tensor) -> Float[Tensor, ""]:
    """How many there are, in the losses' own dtype."""
    return mask.sum().to(like.dtype)
