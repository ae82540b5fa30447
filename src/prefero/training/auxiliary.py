"""Auxiliary models, which train or move beside the policy, and the callbacks that keep them in step with it.

Reference models are served by :mod:`prefero.reference`; here is what a training does with them: it loads
them, refuses what cannot be, gives trained ones their part of the optimizer, and lets them take turns with
the policy, follow it, or extrapolate it between optimizer steps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from prefero.errors import PreferoError
from prefero.models.loading import fill_weight, local_weights
from prefero.objectives.batch import Signal
from prefero.objectives.presets.games import FastSlow
from prefero.reference.providers import Moving, References, Trained, adapters_of, resolve
from prefero.theory.games import extrapolate_parameters
from prefero.training.batches import MicroBatch
from prefero.training.preparation import Prepared
from prefero.training.step import BackwardAndStep, Ranks, Scorer, Share

logger = logging.getLogger(__name__)


def auxiliary_models(prepared: Prepared, accelerator: Accelerator, *, sharded: bool) -> References:
    """The models that the objective reads besides the policy, as the policy starts, on its device.

    ``sharded`` says that FSDP or DeepSpeed cuts the policy's weights up. Raises :class:`PreferoError` where
    an auxiliary model cannot be trained.
    """
    args = prepared.args
    references = resolve(
        prepared.demands,
        prepared.specs,
        prepared.kind,
        prepared.policy,
        partial(_loaded, prepared=prepared),
        precision=accelerator.mixed_precision,
    )
    for provider in references.providers.values():
        if isinstance(provider.model, nn.Module):
            provider.model.to(args.device)
    for name in references.trained:
        if sharded:
            raise PreferoError(
                f"models.{name} is trained, but FSDP and DeepSpeed step the policy alone: train on one "
                "process or with plain data parallelism (leave training.parallel out)"
            )
        if accelerator.num_processes > 1 and accelerator.mixed_precision == "fp16":
            raise PreferoError(
                f"models.{name} is trained, and on several processes float16 could skip a step of it on one "
                "of them alone: use training.precision=bfloat16"
            )
    return references


def _loaded(name: str, prepared: Prepared) -> nn.Module:
    """The model of that name, on the policy's device and ready to score; one that is loaded here, in the
    policy's precision."""
    model = prepared.loaded.get(name)
    if model is None:
        model = prepared.kind.other(name, next(prepared.policy.parameters()).dtype)
    rows = getattr(getattr(model, "config", None), "vocab_size", None)
    largest = getattr(prepared.kind, "largest_token", 0)
    if rows is not None and largest >= rows:
        raise PreferoError(
            f"the data have the token {largest}, but {name} has {rows} tokens: a model that is measured "
            "against needs the tokenizer of the one that is trained"
        )
    prepared.kind.adapt(model, prepared.args.layout)
    return model.to(prepared.args.device).eval()


# One optimizer for the policy and the auxiliary models that train


def join_optimizer(
    optimizer: torch.optim.Optimizer, policy: nn.Module, auxiliary: Trained, *, rate: float, base: float
) -> None:
    """Give the auxiliary model the groups that the policy has, at ``rate`` where the policy has ``base``."""
    twins = dict(_twins(policy, auxiliary))
    for group in [
        group for group in optimizer.param_groups if any(weight in twins for weight in group["params"])
    ]:
        scale = group["lr"] / base if base else 1.0
        weights = [twins[weight] for weight in group["params"]]
        optimizer.add_param_group({**group, "params": weights, "lr": scale * rate})


@torch.no_grad()
def exchange(policy: nn.Module, auxiliary: Trained, optimizer: Any, scheduler: Any) -> None:
    """Let the auxiliary model and the policy change places: with the weights goes all that the optimizer has
    for them, learning rates included."""
    groups = optimizer.param_groups
    place = {id(weight): number for number, group in enumerate(groups) for weight in group["params"]}
    pairs = set()
    for weight, twin in _twins(policy, auxiliary):
        before = weight.clone()
        weight.copy_(twin)
        twin.copy_(before)
        states = optimizer.state.pop(weight, None), optimizer.state.pop(twin, None)
        for owner, state in zip((twin, weight), states, strict=True):
            if state is not None:
                optimizer.state[owner] = state
        pairs.add((place[id(weight)], place[id(twin)]))
    schedule = scheduler.state_dict()
    for mine, its in pairs:
        for name in groups[mine]:
            if name != "params":
                groups[mine][name], groups[its][name] = groups[its][name], groups[mine][name]
        for name in ("base_lrs", "_last_lr"):
            if name in schedule:
                rates = schedule[name] = list(schedule[name])
                rates[mine], rates[its] = rates[its], rates[mine]
    scheduler.load_state_dict(schedule)


def _twins(policy: nn.Module, auxiliary: Trained) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Each weight that the policy trains, and the auxiliary model's."""
    others = auxiliary.weights
    return [(weight, others[name]) for name, weight in policy.named_parameters() if name in others]


@dataclass(eq=False)
class UnwrappedWeights(TrainerCallback):
    """Averages gradients over the processes, clips them and clears them after the step, as transformers and
    data parallelism do for the policy's.

    The weights are those that they do not know of: what the objective learns (``learned``), and those of the
    ``auxiliary`` models that are trained.
    """

    learned: Sequence[nn.Parameter]
    auxiliary: Sequence[Trained]
    accelerator: Accelerator

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Turn activation checkpointing on, as transformers does for the policy when training begins."""
        options = dict(args.activation_checkpointing_kwargs or {})
        layers, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
        for auxiliary in self.auxiliary if args.activation_checkpointing else ():
            model: Any = auxiliary.model
            model.activation_checkpointing_enable(
                every_n_layers=layers, offload=offload, activation_checkpointing_kwargs=options or None
            )

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.accelerator.num_processes > 1:
            self._average()
        for auxiliary in self.auxiliary if args.max_grad_norm else ():
            nn.utils.clip_grad_norm_(auxiliary.weights.values(), args.max_grad_norm)

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for weight in self._weights():
            weight.grad = None

    def _weights(self) -> list[nn.Parameter]:
        return [*self.learned, *(weight for model in self.auxiliary for weight in model.weights.values())]

    def _average(self) -> None:
        weights, reduce = self._weights(), self.accelerator.reduce
        # A rank whose micro-batches did not reach a weight (an expert's) still has to take part.
        here = [float(weight.grad is not None) for weight in weights]
        ranks = reduce(torch.tensor(here, device=self.accelerator.device), reduction="sum").tolist()
        for weight, count in zip(weights, ranks, strict=True):
            if count:
                own = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = reduce(own, reduction="mean")


# What changes models between optimizer steps


@dataclass(eq=False)
class FollowPolicy(TrainerCallback):
    """Lets moving references follow the policy after each optimizer step."""

    references: Sequence[Moving]

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        for reference in self.references:
            reference.follow(model, state.global_step)


class FastSlowStep(BackwardAndStep):
    """An update rule: the objective's gradient, and a running average of either model's DPO loss."""

    def __init__(self, objective: FastSlow, scorer: Scorer, ranks: Ranks) -> None:
        super().__init__(objective, scorer, ranks)
        self._terms = objective.own_terms
        self._running = torch.zeros(len(self._terms), 2, dtype=torch.float64)  # total, count
        self._step = torch.zeros(len(self._terms), 2, device=ranks.device)

    def begin(self, batches: Sequence[MicroBatch]) -> None:
        super().begin(batches)
        self._step.zero_()

    def share(self, policy: nn.Module, batch: MicroBatch, extra: frozenset[Signal], progress: float) -> Share:
        share = super().share(policy, batch, extra, progress)
        self._step += torch.stack([torch.stack(share.terms[at]) for at in self._terms.values()]).detach()
        return share

    def settle(self) -> None:
        """The step is over: its losses, on all ranks, count."""
        self._running += self.ranks.sum(self._step).cpu().double()

    def better(self) -> str:
        """The model with the lowest average loss since the last call, the policy in a draw."""
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


@dataclass(eq=False)
class TakingTurns(TrainerCallback):
    """After every so many optimizer steps, a slow model with a lower loss takes the policy's place.

    Weights, optimizer state and learning rates change places together, so the policy is always the fast one,
    and a learning rate stays with the weights that it belongs to.
    """

    rule: FastSlowStep
    slow: Trained | None

    def on_step_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        self.rule.settle()
        if self.slow is None or not self.slow.every or state.global_step % self.slow.every:
            return
        if self.rule.better() == "slow":
            exchange(model, self.slow, optimizer, lr_scheduler)
            logger.info("after step %d the slow model takes the policy's place", state.global_step)


class Extrapolation(TrainerCallback):
    """After each round of ``every`` optimizer steps, θ ← θ̂ + α (θ̂ − θ̂_previous) over all weights that are
    trained.

    θ̂ is where the round's steps ended and θ̂_previous where the steps of the round before ended, both before
    extrapolation; the first is the start. The optimizer's state stays as it is.

    Raises :class:`PreferoError` for adapters, and for an auxiliary model that takes the policy's place
    between rounds.
    """

    def __init__(self, policy: nn.Module, references: References, alpha: float, every: int) -> None:
        if adapters_of(policy).there:
            raise PreferoError(
                "training.extrapolation is of whole weights: a linear combination of the factors of adapters "
                "is not one of their products; train without adapters (leave model.lora out)"
            )
        if any(auxiliary.every for auxiliary in references.trained.values()):
            raise PreferoError(
                "training.extrapolation follows one model from round to round, and this objective's models "
                "change places: set models.slow.every=0, or leave the extrapolation out"
            )
        reference = references.moving.get("reference")
        read = references.providers.keys() | references.cached.keys()
        follows = reference is not None and (reference.alpha, reference.every) == (1, every)
        if "reference" in read and not follows and PartialState().is_main_process:
            logger.warning(
                "training.extrapolation goes on with a reference that is not the extrapolated policy of the "
                "last round, so this is momentum, but not accelerated preference optimization: for that, set "
                "reference={kind: moving, alpha: 1, every: %d}",
                every,
            )
        self.policy, self.alpha, self.every = policy, alpha, every
        self._previous: dict[str, Tensor] = {}

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in local_weights(self.policy).items() if weight.requires_grad}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self._previous = {name: weight.detach().clone() for name, weight in self._weights().items()}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.every:
            return
        for name, weight in self._weights().items():
            iterate = weight.detach().clone()
            wide = torch.promote_types(weight.dtype, torch.float32)
            previous = self._previous[name].to(wide)
            weight.copy_(extrapolate_parameters(iterate.to(wide), previous, self.alpha))
            self._previous[name] = iterate

    def moved(self) -> Mapping[str, Tensor]:
        """The iterates before extrapolation, for a checkpoint."""
        return self._previous

    @torch.no_grad()
    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`moved` gave, whole tensors."""
        self._previous = {name: weight.detach().clone() for name, weight in self._weights().items()}
        for name, weight in self._previous.items():
            fill_weight(weight, kept[name])
