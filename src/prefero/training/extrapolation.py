"""Nesterov's extrapolation between rounds (accelerated preference optimisation). He et al., 2024, arXiv
2410.06293."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState

from prefero.errors import PreferoError
from prefero.models.parts import fill, parts
from prefero.reference.resolve import adapters_of
from prefero.theory.proximal import extrapolate_parameters

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer


class Extrapolation(TrainerCallback):
    """After each round of ``every`` optimizer steps, θ ← θ̂ + α (θ̂ − θ̂_previous) over all weights that are
    trained.

    θ̂ is what the round's steps ended with and θ̂_previous what the steps of the round before ended with, both
    before extrapolation; the first is the start. The optimizer goes on as it is.

    Raises :class:`PreferoError` for adapters, for FSDP and DeepSpeed of a launcher's, and for a second model
    that takes the policy's place between rounds.
    """

    def __init__(self, trainer: PreferenceTrainer, alpha: float, every: int) -> None:
        if adapters_of(trainer.made.policy).there:
            raise PreferoError(
                "training.extrapolation is of whole weights: a linear combination of the factors of adapters "
                "is not one of their products; train without adapters (leave model.lora out)"
            )
        if trainer.launcher_shards:
            raise PreferoError(
                "training.extrapolation does not reach weights that a launcher shards: use "
                "training.parallel=fsdp"
            )
        if any(second.every for second in trainer.references.trained.values()):
            raise PreferoError(
                "training.extrapolation follows one model from round to round, and this objective's models "
                "change places: set models.slow.every=0, or leave the extrapolation out"
            )
        self.trainer, self.alpha, self.every = trainer, alpha, every
        self._previous: dict[str, Tensor] = {}

    def _weights(self) -> dict[str, Tensor]:
        return {name: one for name, one in parts(self.trainer.model).items() if one.requires_grad}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self._previous = {name: weight.detach().clone() for name, weight in self._weights().items()}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.every:
            return
        for name, weight in self._weights().items():
            following = weight.detach().clone()
            wide = torch.promote_types(weight.dtype, torch.float32)
            previous = self._previous[name].to(wide)
            weight.copy_(extrapolate_parameters(following.to(wide), previous, self.alpha))
            self._previous[name] = following

    def moved(self) -> Mapping[str, Tensor]:
        """The iterates before extrapolation, for a checkpoint."""
        return self._previous

    @torch.no_grad()
    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`moved` gave, whole tensors."""
        self._previous = {name: weight.detach().clone() for name, weight in self._weights().items()}
        for name, weight in self._previous.items():
            fill(weight, kept[name])
