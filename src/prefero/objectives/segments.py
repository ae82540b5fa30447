"""Tokens of a response: the same position of two responses, segments, reasoning steps, random subsets.

A step (or turn) starts where the column ``step`` exceeds all that came before it in the response. Scored
tokens outside of all steps (a separator, an end token) belong to the step before them, or to the first; a
response without steps is one step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import (
    Contrast,
    Margins,
    Pair,
    Sides,
    cell,
    cell_exists,
    located,
    masked_logsumexp,
)
from prefero.objectives.quantities import Column, Quantity, Unary, quantity


class ByPosition(Contrast):
    """A quantity per token at every position of one response against the same position of another: one
    comparison a position, also where neither has a token (a margin of 0).

    Each side is multiplied by ``weight``, which is read in the batch itself at the role of the side, as a
    view has no annotations of tokens. ``worse`` None leaves the one side alone, multiplied by ``sign``.
    """

    def __init__(
        self, better: str, worse: str | None = None, *, weight: Quantity | float = 1.0, sign: float = 1.0
    ) -> None:
        super().__init__()
        self.addresses = [better] if worse is None else [better, worse]
        self.weight, self.sign = quantity(weight), sign

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        first, *second = self.sides(reward, batch)
        margins = self.sign * (first - second[0] if second else first)
        exists = torch.stack([cell_exists(batch, address) for address in self.addresses]).all(0)
        return margins, exists.expand(margins.shape)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example comparison"]:
        return torch.stack(self.sides(quantity, batch)).sum(0)

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> list[Float[Tensor, "example comparison"]]:
        """The quantity of each side, position by position; one per response is the same at all of them."""
        if quantity(batch).dim() < 3:
            size = max(located(batch, address)[0].mask.shape[-1] for address in self.addresses)
            return [cell(quantity, batch, address).expand(-1, size) for address in self.addresses]
        sides = [self.tokens(quantity, batch, address) for address in self.addresses]
        size = max(side.shape[-1] for side in sides)
        return [F.pad(side, (0, size - side.shape[-1])) for side in sides]

    def tokens(
        self, reward: Quantity, batch: PreferenceBatch, address: str
    ) -> Float[Tensor, "example token"]:
        """The weighted quantity of the response at an address; 0 where it has no token."""
        at, place = located(batch, address)
        _, own = located(batch, address.partition("@")[0])
        weight = torch.broadcast_to(self.weight(batch), batch.mask.shape)[:, own]
        value = torch.where(at.mask, reward(at), 0)[:, place]
        size = min(weight.shape[-1], value.shape[-1])
        return F.pad(weight[:, :size] * value[:, :size], (0, value.shape[-1] - size))

    def longest(self, batch: PreferenceBatch) -> Float[Tensor, " example"]:
        """How many positions the longer of the responses has."""
        ends = []
        for address in self.addresses:
            at, place = located(batch, address)
            positions = torch.arange(1, at.mask.shape[-1] + 1, device=at.mask.device)
            ends.append(torch.where(at.mask[:, place], positions, 0).amax(-1))
        return torch.stack(ends).amax(0).to(batch.lengths.dtype)


class Aligned(ByPosition):
    """The same, summed over the positions: one comparison an example."""

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> list[Float[Tensor, "example comparison"]]:
        if quantity(batch).dim() < 3:
            return [cell(quantity, batch, address) for address in self.addresses]
        return [self.tokens(quantity, batch, address).sum(-1, keepdim=True) for address in self.addresses]


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


class SegmentSum(Unary):
    """The sum of a quantity over each segment, at the segment's first token; 0 elsewhere."""

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


def steps_reached(batch: PreferenceBatch) -> Int[Tensor, "example response token"]:
    """The number, in the column ``step``, of the last step that has begun at each token."""
    return torch.where(batch.mask, batch.columns["step"], 0).cummax(-1).values


def step_starts(batch: PreferenceBatch) -> Bool[Tensor, "example response token"]:
    """The first scored token of each step."""
    reached = steps_reached(batch)
    before = torch.cat([torch.zeros_like(reached[..., :1]), reached[..., :-1]], -1)
    return reached > before


def step_index(batch: PreferenceBatch) -> Int[Tensor, "example response token"]:
    """The place of each token's step in its response, from 0."""
    return (step_starts(batch).cumsum(-1) - 1).clamp(min=0)


class StepReached(Quantity):
    """The number, in the column ``step``, of the last step that has begun at each token."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return steps_reached(batch).to(batch.lengths.dtype)


class StepIndex(Quantity):
    """The place of each token's step among the scored steps of its response, from 0."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return step_index(batch).to(batch.lengths.dtype)


class StepCount(Quantity):
    """Number of scored steps of each response, at least 1."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return step_starts(batch).sum(-1).clamp(min=1).to(batch.lengths.dtype)


class StepShare(Quantity):
    """Softmax over the steps of a response of ``scale`` times their scores, at every token of the step.

    A step's score is what ``score`` has at its first token.
    """

    def __init__(self, score: Quantity, scale: float) -> None:
        super().__init__()
        self.score, self.scale = score, scale

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        starts, logits = step_starts(batch), self.scale * self.score(batch)
        normaliser, exists = masked_logsumexp(logits, starts)
        places = torch.arange(starts.shape[-1], device=starts.device).expand_as(starts)
        start = torch.where(starts, places, -1).cummax(-1).values
        start = torch.where(start < 0, starts.int().argmax(-1, keepdim=True), start)
        share = (logits.gather(-1, start) - normaliser[..., None]).exp()
        return torch.where(exists[..., None], share, 1)


class RandomTokens(Quantity):
    """1 for ``count`` scored tokens of each response, drawn without replacement, and 0 for the others.

    In evaluation nothing is drawn: every token has the share of draws that it is part of. ``again`` is one
    more draw, independent of the first.
    """

    def __init__(self, count: Quantity, noise: Quantity | None = None) -> None:
        super().__init__()
        self.count, self.noise = count, noise or Column("noise")

    def again(self) -> RandomTokens:
        # the later digits of a uniform number know nothing of the first
        return RandomTokens(self.count, self.noise.map(lambda noise: noise * 1024 % 1))

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        count = self.count(batch)[..., None]
        if not self.training:
            share = count / batch.lengths[..., None].clamp(min=1)
            return share.clamp(max=1).expand(batch.mask.shape)
        place = self.noise(batch).masked_fill(~batch.mask, torch.inf).argsort(-1).argsort(-1)
        return (place < count).to(batch.lengths.dtype)
