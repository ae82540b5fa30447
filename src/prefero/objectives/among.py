"""Quantities of a response among others: those of its example, or of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import cell
from prefero.objectives.quantities import Length, Map, Quantity, Unary, per_response, present


class Addressed(Quantity):
    """A quantity of the responses at an address such as ``"chosen@unprompted"``, ``[example 1]``."""

    def __init__(self, of: Quantity, address: str) -> None:
        super().__init__()
        self.of, self.address = of, address

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        return cell(self.of, batch, self.address)


def shorter_length() -> Quantity:
    """The smaller length of the chosen and the rejected response, ``[example 1]``."""
    return Map(torch.minimum, Addressed(Length(), "chosen"), Addressed(Length(), "rejected"))


class ListMean(Unary):
    """The mean of a quantity over the responses that each example has, ``[example 1]``."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        values, there = per_response(self.of, batch), present(batch)
        return torch.where(there, values, 0).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)


class OthersMean(Quantity):
    """For every response, the mean over the example's other responses (with ``roles``); 0 for one alone."""

    def __init__(self, of: Quantity, roles: Sequence[str] = ()) -> None:
        super().__init__()
        self.of, self.roles = of, tuple(roles)

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        values, counted = per_response(self.of, batch), present(batch)
        if self.roles:
            places = torch.tensor([batch.roles.index(role) for role in self.roles], device=values.device)
            named = torch.zeros(counted.shape[1], dtype=torch.bool, device=values.device)
            counted = counted & named.index_fill(0, places, True)
        values = torch.where(counted, values, 0)
        others = counted.sum(1, keepdim=True) - counted.to(torch.int64)
        return (values.sum(1, keepdim=True) - values) / others.clamp(min=1)


class ListPosition(Quantity):
    """Place of each response in the data's list, from 0."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "1 response"]:
        places = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        return places[None].to(batch.lengths.dtype)


class Rank(Quantity):
    """Place of each response in its example's order by a quantity, without a gradient: 1 for the largest.

    Equal values are ordered by ``ties``, or share a place.
    """

    def __init__(self, of: Quantity, ties: Quantity | None = None) -> None:
        super().__init__()
        self.of, self.ties = of, ties

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        values, there = per_response(self.of, batch).detach(), present(batch)
        ahead = values[:, None, :] > values[:, :, None]
        if self.ties is not None:
            second = per_response(self.ties, batch).detach()
            equal = values[:, None, :] == values[:, :, None]
            ahead = ahead | (equal & (second[:, None, :] > second[:, :, None]))
        return 1 + (ahead & there[:, None, :]).sum(-1).to(values.dtype)


class BatchMean(Unary):
    """The mean of a quantity over all responses of the batch."""

    whole_step = True

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        values, there = per_response(self.of, batch), present(batch)
        return torch.where(there, values, 0).sum() / there.sum().clamp(min=1)
