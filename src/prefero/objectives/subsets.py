"""Random subsets of a response's tokens, as quantities: the draw is data, the column ``noise``."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.quantities import Column, Quantity


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
