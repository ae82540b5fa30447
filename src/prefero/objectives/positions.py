"""Contrasts between the same positions of two responses, or of one response in two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import Contrast, Margins, cell, cell_exists, located
from prefero.objectives.quantities import Quantity, quantity


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
