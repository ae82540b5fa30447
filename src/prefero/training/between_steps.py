"""What changes the policy between optimizer steps, and what a run keeps for its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from prefero.training.checkpoints import Kept
from prefero.training.extrapolation import Extrapolation
from prefero.training.fast_slow import FastSlowStep, TakingTurns

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer


def between_steps(trainer: PreferenceTrainer) -> tuple[dict[str, Kept], list[TrainerCallback]]:
    """What checkpoints hold, each in a file of its name, and the callbacks that change the policy; references
    follow what these leave.

    Raises :class:`~prefero.errors.PreferoError` for an extrapolation that cannot be.
    """
    kept: dict[str, Kept] = {f"moving-{name}": one for name, one in trainer.references.moving.items()}
    kept |= {f"trained-{name}": one for name, one in trainer.references.trained.items()}
    callbacks: list[TrainerCallback] = []
    if isinstance(trainer.update, FastSlowStep):
        kept["fast-slow"] = trainer.update
        callbacks.append(TakingTurns(trainer, trainer.update))
    if trainer.args.extrapolation is not None and trainer.plan is not None:
        every = trainer.args.extrapolation_every or trainer.plan.steps_per_epoch
        kept["extrapolation"] = extrapolation = Extrapolation(trainer, trainer.args.extrapolation, every)
        callbacks.append(extrapolation)
    return kept, callbacks
