"""Segments: runs of tokens that a response is cut into, and the contrast that pairs those of a pair."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import Pair, Sides
from prefero.objectives.quantities import Column, Quantity


class InSegment(Quantity):
    """1 for the tokens of any segment, 0 outside of all: the column ``segment``."""

    def __init__(self) -> None:
        super().__init__()
        self.segment = Column("segment")

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return (self.segment(batch) > 0).to(batch.lengths.dtype)


class SegmentPairs(Pair):
    """The segments of the chosen response, best first, against those of the rejected one, worst first.

    A quantity per token, as the reward is, is summed over each segment and multiplied by ``weight``; one per
    response is the same for all its segments. What orders the segments, and what weighs them, is read at the
    first token of each. Of equal ones the earlier comes first; segments beyond the smaller number of the two
    responses meet nothing.
    """

    def __init__(
        self, score: Quantity, weight: Quantity, better: str = "chosen", worse: str = "rejected"
    ) -> None:
        super().__init__(better, worse)
        self.score, self.weight = score, weight

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        if quantity(batch).dim() < 3:
            better, worse = super().sides(quantity, batch)
            places = batch.mask.shape[0], batch.mask.shape[2]
            return better.expand(places), worse.expand(places)
        return self.paired(self.weight * SegmentSum(quantity), batch)

    def paired(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        """What a quantity has at the first tokens of the segments that meet."""
        values = torch.broadcast_to(quantity(batch), batch.mask.shape)
        better, worse = self.order(batch)
        return self.at(values, batch, self.better, better), self.at(values, batch, self.worse, worse)

    def order(
        self, batch: PreferenceBatch
    ) -> tuple[Int[Tensor, "example comparison"], Int[Tensor, "example comparison"]]:
        """The first tokens of the segments that meet, by their places in the two responses."""
        score, first = self.score(batch), is_first_of_segment(batch)
        keys = torch.where(first, -score, torch.inf), torch.where(first, score, torch.inf)
        better, worse = (
            key[:, batch.roles.index(role)].argsort(dim=-1, stable=True)
            for key, role in zip(keys, (self.better, self.worse), strict=True)
        )
        return better, worse

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "example comparison"]:
        counts = is_first_of_segment(batch).sum(-1)
        sides = [batch.roles.index(self.better), batch.roles.index(self.worse)]
        count = counts[:, sides].min(1, keepdim=True).values
        return torch.arange(batch.mask.shape[-1], device=count.device) < count

    @staticmethod
    def at(values: Tensor, batch: PreferenceBatch, role: str, places: Tensor) -> Tensor:
        return values[:, batch.roles.index(role)].gather(-1, places)


class SegmentSum(Quantity):
    """The sum of a quantity over each segment, at the segment's first token; 0 elsewhere."""

    def __init__(self, of: Quantity) -> None:
        super().__init__()
        self.of = of

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        values = torch.where(batch.mask, self.of(batch), 0)
        sums = torch.zeros_like(values).scatter_add(-1, first_of_segment(batch), values)
        return torch.where(is_first_of_segment(batch), sums, 0)


def first_of_segment(batch: PreferenceBatch) -> Int[Tensor, "example response token"]:
    """The place of the first token of each token's segment; tokens outside of all are one segment here."""
    segment, order = torch.where(batch.mask, batch.columns["segment"], 0).sort(dim=-1, stable=True)
    places = torch.arange(order.shape[-1], device=order.device)
    begins = (places == 0) | (segment != segment.roll(1, -1))
    start = torch.where(begins, places, 0).cummax(-1).values
    return torch.empty_like(order).scatter(-1, order, order.gather(-1, start))


def is_first_of_segment(batch: PreferenceBatch) -> Bool[Tensor, "example response token"]:
    """Whether a segment begins at the token."""
    places = torch.arange(batch.mask.shape[-1], device=batch.mask.device)
    inside = torch.where(batch.mask, batch.columns["segment"], 0) > 0
    return inside & (first_of_segment(batch) == places)
