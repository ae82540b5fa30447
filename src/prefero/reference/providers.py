"""Where the log-probabilities of a model that is not trained come from while the policy trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from prefero.data.packing import Forest
from prefero.errors import PreferoError
from prefero.models.adapters import adapters_off
from prefero.models.language import SecondModel, score
from prefero.objectives.batch import Signal, TokenLogps


class Provider(Protocol):
    """Scores a row as the policy was, or as another model is."""

    @property
    def model(self) -> nn.Module | SecondModel:
        """The model that two-model signals of the policy are measured against."""
        ...

    def score(self, forest: Forest, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        """What the model gives the row, by view, without gradients."""
        ...


class Frozen:
    """A model that stays as it is: a copy of the start, or another checkpoint."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def score(self, forest: Forest, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return score(self.model, forest, signals)


class AdaptersOff:
    """The policy with its adapters switched off: the start of a run that trains adapters on a fixed model."""

    def __init__(self, policy: nn.Module) -> None:
        self.policy = policy

    @property
    def model(self) -> SecondModel:
        return SecondModel(self.policy, partial(adapters_off, self.policy))

    @torch.no_grad()
    def score(self, forest: Forest, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        with adapters_off(self.policy), _evaluating(self.policy):
            return score(self.policy, forest, signals)


class Moving(Frozen):
    """A reference that follows the policy: TR-DPO (Gorbatovski et al., 2024, arXiv 2404.09656).

    After every ``every``-th optimizer step, ref ← α·policy + (1 − α)·ref over all weights that are trained;
    α = 1 is the paper's hard update, α of 0.5 to 0.6 its soft one. The interval of the soft update is that of
    the authors' code, which the paper's text leaves open: ``every=1`` updates after each step.
    """

    def __init__(self, policy: nn.Module, *, alpha: float = 0.6, every: int = 512) -> None:
        if not 0 <= alpha <= 1:
            raise PreferoError(f"alpha of a moving reference lies between 0 and 1, not {alpha}")
        if every < 1:
            raise PreferoError(f"a moving reference is updated every so many optimizer steps, not {every}")
        self.alpha, self.every = alpha, every
        self._moves = [name for name, weight in policy.named_parameters() if weight.requires_grad]
        super().__init__(frozen_copy(policy))

    @torch.no_grad()
    def follow(self, policy: nn.Module, step: int) -> bool:
        """Update after optimizer step ``step`` (from 1), if it is one of those; returns whether it was."""
        if step % self.every:
            return False
        theirs, mine = _parts(policy), _parts(self.model)
        for name in self._moves:
            now = theirs[name]
            if isinstance(now, DTensor) and not isinstance(mine[name], DTensor):
                now = now.full_tensor()
            mine[name].lerp_(now.to(mine[name].dtype), self.alpha)
        return True

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`moved` gave, whole tensors."""
        mine = _parts(self.model)
        for name in self._moves:
            _fill(mine[name], weights[name])

    def moved(self) -> Mapping[str, Tensor]:
        """The weights that differ from the start's, for a checkpoint."""
        mine = _parts(self.model)
        return {name: mine[name] for name in self._moves}


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the weights which are not trained."""
    fixed = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, fixed).eval().requires_grad_(False)


def _parts(model: nn.Module) -> dict[str, Tensor]:
    """The weights; of a sharded model this process's parts, also where a forward has left them whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def _fill(weight: Tensor, whole: Tensor) -> None:
    """``whole`` into a weight, or into this process's part of it."""
    whole = whole.to(weight.device, weight.dtype)
    if isinstance(weight, DTensor):
        whole = distribute_tensor(whole, weight.device_mesh, weight.placements)
    weight.copy_(whole)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)
