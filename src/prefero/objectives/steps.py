"""Reasoning steps, and turns, as quantities: which one a token belongs to, how many there are, their shares.

A step starts where the column ``step`` exceeds all that came before it in the response. Scored tokens outside
of all steps (a separator, an end token) belong to the step before them, or to the first; a response without
steps is one step.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import masked_logsumexp
from prefero.objectives.quantities import Quantity


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
