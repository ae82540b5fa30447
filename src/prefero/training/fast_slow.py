"""Fast–slow chasing (OFS-DPO): the better of two models in training is the policy. Qi et al., 2024, arXiv
2406.05534."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from prefero.objectives.batch import Signal
from prefero.objectives.presets.games import FastSlow
from prefero.training.scoring import Scorer
from prefero.training.second_policies import exchange
from prefero.training.updates import BackwardAndStep, Ranks, Row, Share

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)


class FastSlowStep(BackwardAndStep):
    """An update rule: the objective's gradient, and a running average of either model's DPO loss."""

    def __init__(self, objective: FastSlow, scorer: Scorer, ranks: Ranks) -> None:
        super().__init__(objective, scorer, ranks)
        self._terms = objective.own_terms
        self._running = torch.zeros(len(self._terms), 2, dtype=torch.float64)  # total, count
        self._step = torch.zeros(len(self._terms), 2, device=ranks.device)

    def begin(self, rows: Sequence[Row]) -> None:
        super().begin(rows)
        self._step.zero_()

    def share(self, policy: nn.Module, row: Row, extra: frozenset[Signal], progress: float) -> Share:
        share = super().share(policy, row, extra, progress)
        self._step += torch.stack([torch.stack(share.terms[at]) for at in self._terms.values()]).detach()
        return share

    def settle(self) -> None:
        """The step is over: its losses, on all ranks, count."""
        self._running += self.ranks.sum(self._step).cpu().double()

    def better(self) -> str:
        """Whose average loss since the last call is the lowest, the policy's in a draw."""
        totals, counts = self._running.unbind(1)
        means = dict(zip(self._terms, (totals / counts.clamp(min=1)).tolist(), strict=True))
        self._running.zero_()
        return min(means, key=lambda name: (means[name], name != "policy"))

    def moved(self) -> Mapping[str, Tensor]:
        """For a checkpoint."""
        return {"losses": self._running}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`moved` gave."""
        self._running.copy_(kept["losses"])


class TakingTurns(TrainerCallback):
    """After every so many optimizer steps, a second model with a lower loss takes the policy's place.

    Weights, optimizer state and learning rates change places together, so the policy is always the fast one,
    and a learning rate stays with the weights that it belongs to.
    """

    def __init__(self, trainer: PreferenceTrainer, rule: FastSlowStep) -> None:
        self.trainer, self.rule = trainer, rule

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.rule.settle()
        second = self.trainer.references.trained.get("slow")
        if second is None or not second.every or state.global_step % second.every:
            return
        if self.rule.better() == "slow":
            trainer = self.trainer
            exchange(trainer.model, second, trainer.optimizer, trainer.lr_scheduler)
            logger.info("after step %d the slow model takes the policy's place", state.global_step)
