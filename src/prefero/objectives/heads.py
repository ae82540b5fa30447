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

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.quantities import Quantity


class VectorHead(Quantity):
    """A learned module of a state: its outputs for every response, or token, that the state belongs to.

    The module runs in the precision of its own weights, whatever the model's; those that depend on how wide
    the states are belong to :class:`Fitted` modules. Write ``Head(module, Measured(STATE).detach())`` to keep
    its gradient from the model.
    """

    def __init__(self, module: nn.Module, state: Quantity) -> None:
        super().__init__()
        self.module, self.state = module, state

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "*where output"]:
        states = self.state(batch)
        own = next((weight.dtype for weight in self.module.parameters()), torch.get_default_dtype())
        with torch.autocast(states.device.type, enabled=False):
            return self.module(states.to(own)).to(batch.lengths.dtype)


class Head(VectorHead):
    """A head with one output: a number for every response, or token."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "*where"]:
        return super().forward(batch).squeeze(-1)


class Fitted(nn.Module):
    """A module whose weights (``names``) are made when the first states show how wide they are."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.fitted = names
        self.unfit()

    def unfit(self) -> None:
        """Forget the weights, to fit other states."""
        for name in self.fitted:
            self.register_parameter(name, None)


class Projection(Fitted):
    """A linear map of the last axis; as many outputs as inputs if ``outputs`` is None.

    Its weight starts uniform within 1/√width; ``bias`` is where its bias starts, None for no bias.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, outputs: int | None = 1, *, bias: float | None = 0.0) -> None:
        super().__init__("weight", "bias")
        self.outputs, self.start = outputs, bias

    def forward(self, states: Float[Tensor, "*where hidden"]) -> Float[Tensor, "*where output"]:
        if self.weight is not None and self.weight.shape[-1] != states.shape[-1]:
            raise PreferoError(
                f"a head that was made for states of {self.weight.shape[-1]} numbers meets states of "
                f"{states.shape[-1]}: it belongs to the model that it was trained with"
            )
        if self.weight is None:
            outputs = self.outputs or states.shape[-1]
            self.weight = drawn((outputs, states.shape[-1]), like=states)
            if self.start is not None:
                self.bias = nn.Parameter(states.new_full((outputs,), self.start))
        return F.linear(states, self.weight, self.bias)


def drawn(shape: tuple[int, ...], *, like: Tensor) -> nn.Parameter:
    """A weight, uniform within 1/√(its last axis), on the device of ``like``; the same on every device."""
    bound = 1 / math.sqrt(shape[-1])
    weight = torch.empty(shape, dtype=like.dtype).uniform_(-bound, bound)
    return nn.Parameter(weight.to(like.device))
