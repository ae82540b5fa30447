"""Where the log-probabilities of a model beside the policy come from while the policy trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from prefero.errors import PreferoError
from prefero.kinds.kind import Kind
from prefero.models.adapters import adapters_off
from prefero.models.parts import fill, parts
from prefero.models.second import SecondModel
from prefero.objectives.batch import Signal, TokenLogps


class Provider(Protocol):
    """Scores a row as the policy was, or as another model is."""

    @property
    def model(self) -> nn.Module | SecondModel:
        """The model that two-model signals of the policy are measured against."""
        ...

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        """What the model gives the row, by view; without gradients, unless the model is trained."""
        ...


class Frozen:
    """A model that stays as it is: a copy of the start, or another checkpoint."""

    def __init__(self, kind: Kind, model: nn.Module) -> None:
        self.kind = kind
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)


class AdaptersOff:
    """The policy with its adapters switched off: the start of a run that trains adapters on a fixed model."""

    def __init__(self, kind: Kind, policy: nn.Module) -> None:
        self.kind, self.policy = kind, policy

    @property
    def model(self) -> SecondModel:
        return SecondModel(self.policy, partial(adapters_off, self.policy))

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        with adapters_off(self.policy), _evaluating(self.policy):
            return self.kind.score(self.policy, inputs, signals)


class Changing:
    """A copy of the policy as it starts, whose weights go their own way where the policy's are trained; the
    others are shared."""

    def __init__(self, kind: Kind, policy: nn.Module) -> None:
        self.kind = kind
        self._own = [name for name, weight in policy.named_parameters() if weight.requires_grad]
        self.model = frozen_copy(policy)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`moved` gave, whole tensors."""
        mine = parts(self.model)
        for name in self._own:
            fill(mine[name], weights[name])

    def moved(self) -> Mapping[str, Tensor]:
        """The weights that differ from the start's, for a checkpoint."""
        mine = parts(self.model)
        return {name: mine[name].detach() for name in self._own}


class Moving(Changing):
    """A reference that follows the policy: TR-DPO (Gorbatovski et al., 2024, arXiv 2404.09656).

    After every ``every``-th optimizer step, ref ← α·policy + (1 − α)·ref over all weights that are trained;
    α = 1 is the paper's hard update, α of 0.5 to 0.6 its soft one. The interval of the soft update is that of
    the authors' code, which the paper's text leaves open: ``every=1`` updates after each step.
    """

    def __init__(self, kind: Kind, policy: nn.Module, *, alpha: float = 0.6, every: int | None = 512) -> None:
        if not 0 <= alpha <= 1:
            raise PreferoError(f"alpha of a moving reference lies between 0 and 1, not {alpha}")
        if every is None or every < 1:
            raise PreferoError(f"a moving reference is updated every so many optimizer steps, not {every}")
        self.alpha, self.every = alpha, every
        super().__init__(kind, policy)

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)

    @torch.no_grad()
    def follow(self, policy: nn.Module, step: int) -> bool:
        """Update after optimizer step ``step`` (from 1), if it is one of those; returns whether it was."""
        if step % self.every:
            return False
        theirs, mine = parts(policy), parts(self.model)
        for name in self._own:
            now = theirs[name]
            if isinstance(now, DTensor) and not isinstance(mine[name], DTensor):
                now = now.full_tensor()
            mine[name].lerp_(now.to(mine[name].dtype), self.alpha)
        return True


class Trained(Changing):
    """A model that the objective trains beside the policy: its score carries a gradient.

    ``learning_rate`` is its own, None the objective's choice. ``every`` is after how many optimizer steps an
    objective with taking turns compares it with the policy; None or 0 is never.
    """

    def __init__(
        self,
        kind: Kind,
        policy: nn.Module,
        *,
        learning_rate: float | None = None,
        every: int | None = None,
    ) -> None:
        super().__init__(kind, policy)
        self.policy, self.learning_rate, self.every = policy, learning_rate, every
        for weight in self.weights.values():
            weight.requires_grad_()

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained, under the names that it has in the policy."""
        own = set(self._own)
        return {name: weight for name, weight in self.model.named_parameters() if name in own}

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        self.model.train(self.policy.training)
        return self.kind.score(self.model, inputs, signals)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the weights which are not trained."""
    fixed = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, fixed).eval().requires_grad_(False)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)
