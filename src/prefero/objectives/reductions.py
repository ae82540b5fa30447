"""Reductions: from losses ``[row comparison]`` to terms whose totals and counts add up over micro-batches.

A reduction receives losses that are 0 where no comparison exists. A term's ``count`` is made of masks and
columns only, so the denominators of an optimizer step are known before any model has run; what cannot keep
that promise is not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.contrasts import AcrossBatch, Comparisons, masked_logsumexp
from prefero.objectives.quantities import Length
from prefero.objectives.ranges import AtLeastOne, NonNegative, Positive, Real, Share


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


MOST_GROUPS = 64
"""How many groups there may be where their sizes are not given."""

Normalisation = Literal["total_count", "group_mean"]


class GroupWeights(nn.Module):
    """A reduction to Σ_g w_g L_g; q climbs the simplex towards the groups that fare worst.

    ``counts`` are the numbers of training pairs of the groups; without them the pairs seen so far are
    counted, and a group takes part from its first pair on. In training q moves once a call, by
    exp(step_size · trade_off · (L_g + adjustment/√N_g)), before the loss is formed; no gradient flows through
    it. L_g is N/N_g times the sum of the group's losses (``total_count``) or their mean (``group_mean``), 0
    for a group that the batch does not have. w_g is (1 − trade_off)/G + trade_off · q_g.
    """

    whole_step = True
    counts: Tensor
    log_q: Tensor

    def __init__(
        self,
        counts: Sequence[float] | None,
        step_size: float,
        normalisation: Normalisation,
        adjustment: float,
        trade_off: float,
        start: Literal["uniform", "inverse_count"],
    ) -> None:
        super().__init__()
        self.step_size, self.normalisation, self.adjustment = step_size, normalisation, adjustment
        self.trade_off, self.start, self.counting = trade_off, start, counts is None
        sizes = torch.tensor(counts or [0.0] * MOST_GROUPS, dtype=torch.get_default_dtype())
        self.register_buffer("counts", sizes)
        self.register_buffer("log_q", torch.zeros_like(sizes).log_softmax(0))

    def members(self, comparisons: Comparisons) -> Float[Tensor, "row group"]:
        """1 for the group of each row, 0 for the others and where a row has no comparison."""
        batch, contrast, known = comparisons.batch, comparisons.contrast, len(self.counts)
        group = batch.columns["group"]
        if len(group) and int(group.max()) >= known:
            given = (
                f"without counts there may be {known} groups: renumber them"
                if self.counting
                else f"group_robust was given counts of {known} groups"
            )
            raise PreferoError(f"the data has a group {int(group.max())}, but {given}, from 0 on")
        member = F.one_hot(group, known).to(comparisons.margins.dtype)
        if isinstance(contrast, AcrossBatch):
            member = contrast.rows(member, batch)
        return member * comparisons.mask.any(1, keepdim=True)

    def sizes(self, member: Float[Tensor, "row group"]) -> Float[Tensor, " group"]:
        """N_g; of a group that was never counted what the batch has of it."""
        counts = self.counts.to(member.dtype)
        return torch.where(counts > 0, counts, member.sum(0))

    def group_losses(
        self, losses: Float[Tensor, "row comparison"], comparisons: Comparisons
    ) -> Float[Tensor, " group"]:
        """L_g of every group; 0 for a group that the batch does not have."""
        member = self.members(comparisons)
        totals = member.T @ losses.sum(1)
        if self.normalisation == "total_count":
            sizes = self.sizes(member)
            return totals * sizes.sum() / sizes.clamp(min=1)
        return totals / (member.T @ comparisons.mask.sum(1).to(losses.dtype)).clamp(min=1)

    def q(self, sizes: Float[Tensor, " group"]) -> Float[Tensor, " group"]:
        """The weights of the groups that have a size, on the simplex; 0 for the others."""
        log_q = self.log_q.to(sizes.dtype)
        if self.start == "inverse_count":
            log_q = log_q - sizes.clamp(min=1).log()
        return on_simplex(log_q, sizes > 0)

    def forward(self, losses: Float[Tensor, "row comparison"], comparisons: Comparisons) -> list[Term]:
        member = self.members(comparisons)
        if self.training and self.counting:
            self.counts.add_(member.detach().sum(0))
        per_group, sizes = self.group_losses(losses, comparisons), self.sizes(member)
        known = sizes > 0
        if self.training:
            climb = per_group.detach() + self.adjustment / sizes.clamp(min=1).sqrt()
            moved = self.log_q + self.step_size * self.trade_off * torch.where(known, climb, 0)
            # shifted for all alike: a group that is yet to come has the weight that it would have kept
            self.log_q.copy_(moved - masked_logsumexp(moved, known)[0])
        weights = self.trade_off * self.q(sizes)
        uniform = known.to(weights.dtype) / known.sum().clamp(min=1)
        weights = weights + (1 - self.trade_off) * uniform
        total = weights @ per_group
        return [Term(total, number(comparisons.mask.any(), losses), False, losses.sum(1))]


def on_simplex(logits: Float[Tensor, " group"], known: Bool[Tensor, " group"]) -> Float[Tensor, " group"]:
    """Softmax over the known groups; 0 for the others."""
    return torch.where(known, (logits - masked_logsumexp(logits, known)[0]).exp(), 0)


def worst_group(
    counts: list[Positive] | None = None,
    step_size: NonNegative = 0.01,
    normalisation: Normalisation = "total_count",
    adjustment: Real = 0.0,
    trade_off: Share = 1.0,
    start: Literal["uniform", "inverse_count"] = "uniform",
) -> GroupWeights:
    """Groups of the column ``group`` weighted towards the worst. Ramesh et al., 2024, arXiv 2405.20304."""
    return GroupWeights(counts, step_size, normalisation, adjustment, trade_off, start)
