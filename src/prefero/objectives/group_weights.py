"""Group-robust reduction: the groups that fare worst weigh most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.contrasts import AcrossBatch, Comparisons, masked_logsumexp
from prefero.objectives.ranges import NonNegative, Positive, Real, Share
from prefero.objectives.reductions import Term, number

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
