"""What keeps step with the trainer: the order of the data, moving references, the objective's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

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

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # Nothing is wrapped around the objective that would average its gradients.
        for weight in self.trainer.objective_weights:
            if weight.grad is not None:
                weight.grad = self.trainer.accelerator.reduce(weight.grad, reduction="mean")

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for weight in self.trainer.objective_weights:
            weight.grad = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for reference in self.trainer.references.moving.values():
            reference.follow(self.trainer.model, state.global_step)
        if state.global_step == state.max_steps:
            control.should_log = True  # a run shorter than the logging interval is seen too
