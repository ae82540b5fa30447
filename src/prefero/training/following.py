"""What keeps step with the trainer: the order of the data, moving references, weights beside the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from prefero.training.second_policies import as_the_policy_trains

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer


class Following(TrainerCallback):
    """Does at every epoch and optimizer step what transformers does not know of."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Wrapped for a resume, the sampler is out of reach of transformers.
        rows, plan = self.trainer.rows, self.trainer.plan
        assert rows is not None and plan is not None
        rows.set_epoch(state.global_step // plan.steps_per_epoch)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for second in self.trainer.references.trained.values():
            as_the_policy_trains(second, args)

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._average(self._unwrapped())
        for second in self.trainer.references.trained.values():
            if args.max_grad_norm:
                nn.utils.clip_grad_norm_(second.weights.values(), args.max_grad_norm)

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for weight in self._unwrapped():
            weight.grad = None

    def _unwrapped(self) -> list[nn.Parameter]:
        """What is trained with nothing wrapped around it that would average its gradients."""
        trained = self.trainer.references.trained.values()
        seconds = [weight for second in trained for weight in second.weights.values()]
        return [*self.trainer.objective_weights, *seconds]

    def _average(self, weights: list[nn.Parameter]) -> None:
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1 or not weights:
            return
        # A rank whose rows did not reach a weight (an expert's) still has to take part.
        here = torch.tensor([float(weight.grad is not None) for weight in weights], device=accelerator.device)
        for weight, ranks in zip(weights, accelerator.reduce(here, reduction="sum").tolist(), strict=True):
            if ranks:
                own = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = accelerator.reduce(own, reduction="mean")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for reference in self.trainer.references.moving.values():
            reference.follow(self.trainer.model, state.global_step)
        if state.global_step == state.max_steps:
            control.should_log = True  # a run shorter than the logging interval is seen too
