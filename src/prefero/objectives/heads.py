"""Heads: learned functions of a model's states, as quantities that train with the policy.

A head is a part of the objective: its weights stand in the optimizer beside the policy's, in checkpoints, and
in what a run leaves behind. How wide a model's states are is known only when there is a model, so weights
whose shape depends on it are made by :func:`~prefero.objectives.needs.materialise` or, without it, by the
first batch; an optimizer is to be given them after that. Every weight that is drawn is made this way, so that
one seed decides about all of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch, Signal
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Quantity, present


class State(Quantity):
    """A state that a model's adapter measures; 0 where a response or a token is absent."""

    def __init__(self, signal: Signal, model: str = "policy") -> None:
        super().__init__()
        self.signal, self.model = signal, model

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response *rest"]:
        states = batch.models[self.model].signals[self.signal]
        there = batch.mask if self.signal.axes == "example response token" else present(batch)
        return torch.where(there[(...,) + (None,) * (states.dim() - there.dim())], states, 0)


class Head(Quantity):
    """A learned module of a state: one number for every response, or token, that the state belongs to.

    A module with several outputs leaves them as a trailing axis. It runs in the precision of its own weights,
    whatever the model's. Write ``Head(module, State(STATE).detach())`` to keep its gradient from the model.
    """

    def __init__(self, module: nn.Module, state: Quantity) -> None:
        super().__init__()
        self.module, self.state = module, state

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        states = self.state(batch)
        own = next((weight.dtype for weight in self.module.parameters()), torch.get_default_dtype())
        with torch.autocast(states.device.type, enabled=False):
            outputs = self.module(states.to(own))
        outputs = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs
        return outputs.to(batch.lengths.dtype)


class Projection(nn.Module):
    """A linear map of the last axis; ``bias`` is where its bias starts, None for no bias.

    Its weight is made when the first states show how wide they are, uniform within 1/√width as in
    :class:`torch.nn.Linear`.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, outputs: int, *, bias: float | None = 0.0) -> None:
        super().__init__()
        self.outputs = outputs
        self.register_parameter("weight", None)
        self.register_parameter("bias", None if bias is None else nn.Parameter(torch.full((outputs,), bias)))

    def forward(self, states: Float[Tensor, "*rest hidden"]) -> Float[Tensor, "*rest output"]:
        if self.weight is None:
            self.weight = drawn((self.outputs, states.shape[-1]), like=states)
        return F.linear(states, self.weight, self.bias)


def drawn(shape: tuple[int, ...], *, like: Tensor) -> nn.Parameter:
    """A weight, uniform within 1/√(its last axis), on the device of ``like``; the same on every device."""
    bound = 1 / math.sqrt(shape[-1])
    weight = torch.empty(shape, dtype=like.dtype).uniform_(-bound, bound)
    return nn.Parameter(weight.to(like.device))


class TotalOf(nn.Module):
    """A slot: a quantity added up over the responses of each comparison. A module, so that what the quantity
    learns stays part of the objective."""

    def __init__(self, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity

    def forward(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return comparisons.total(self.quantity)
