"""Models beside the policy: loaded as it is, and looked up in the disk cache, whose gaps they fill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from prefero.errors import PreferoError
from prefero.models.kind import Kind
from prefero.models.loading import fill_parts, local_parts
from prefero.objectives.batch import Signal
from prefero.objectives.compare import Objective
from prefero.objectives.presets.games import FastSlow
from prefero.reference.cache import CacheShare
from prefero.reference.providers import References, Trained, adapters_of, fill_cache
from prefero.theory.games import extrapolate_parameters
from prefero.training.checkpoints import Kept
from prefero.training.config import PreferenceArguments
from prefero.training.ingredients import Ingredients, all_of
from prefero.training.oracle import ComparisonOracleStep
from prefero.training.step import BackwardAndStep, Ranks, Row, Scorer, Share, UpdateRule, WholeStep

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer


def loaded(name: str, kind: Kind, policy: nn.Module, args: PreferenceArguments) -> nn.Module:
    """The model of that name in the policy's precision, on its device, ready to score."""
    model = kind.other(name, next(policy.parameters()).dtype)
    kind.adapt(model, args.layout)
    return model.to(args.device)


def fill_gaps(references: References, made: Ingredients, accelerator: Accelerator) -> None:
    """Score what the cache lacks of the examples, shared among the processes; the models are as they are
    now."""
    args = made.args
    items = [item for data in (made.train, *all_of(made.eval)) for item in data or ()]
    shows = accelerator.is_local_main_process and not args.disable_tqdm
    with accelerator.autocast():
        fill_cache(
            references,
            made.kind,
            items,
            tokens_per_row=made.tokens_per_row,
            device=args.device,
            share=CacheShare(args.process_index, args.world_size, accelerator.wait_for_everyone),
            progress=partial(tqdm, leave=False) if shows else None,
        )


def refuse_impossible(references: References, accelerator: Accelerator, *, sharded: bool) -> None:
    """Raise :class:`PreferoError` where a model beside the policy cannot be trained."""
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


def join_optimizer(
    optimizer: torch.optim.Optimizer, policy: nn.Module, second: Trained, *, rate: float, base: float
) -> None:
    """Give the second model the groups that the policy has, at ``rate`` where the policy has ``base``."""
    twins = dict(_twins(policy, second))
    for group in [
        group for group in optimizer.param_groups if any(weight in twins for weight in group["params"])
    ]:
        scale = group["lr"] / base if base else 1.0
        weights = [twins[weight] for weight in group["params"]]
        optimizer.add_param_group({**group, "params": weights, "lr": scale * rate})


def as_the_policy_trains(second: Trained, args: Any) -> None:
    """Activation checkpointing, which transformers turns on for the policy when training begins."""
    if args.activation_checkpointing:
        options = dict(args.activation_checkpointing_kwargs or {})
        model: Any = second.model
        model.activation_checkpointing_enable(
            every_n_layers=options.pop("every_n_layers", 1),
            offload=options.pop("offload", False),
            activation_checkpointing_kwargs=options or None,
        )


@torch.no_grad()
def exchange(policy: nn.Module, second: Trained, optimizer: Any, scheduler: Any) -> None:
    """The second model takes the policy's place, and the policy its: with the weights go all that the
    optimizer has for them, learning rates included."""
    groups = optimizer.param_groups
    place = {id(weight): number for number, group in enumerate(groups) for weight in group["params"]}
    pairs = set()
    for first, other in _twins(policy, second):
        kept = first.clone()
        first.copy_(other)
        other.copy_(kept)
        states = optimizer.state.pop(first, None), optimizer.state.pop(other, None)
        for weight, state in zip((other, first), states, strict=True):
            if state is not None:
                optimizer.state[weight] = state
        pairs.add((place[id(first)], place[id(other)]))
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


def _twins(policy: nn.Module, second: Trained) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Each weight that the policy trains, and the second model's."""
    others = second.weights
    return [(weight, others[name]) for name, weight in policy.named_parameters() if name in others]


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
        return {name: one for name, one in local_parts(self.trainer.model).items() if one.requires_grad}

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
            fill_parts(weight, kept[name])


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


RULES: Mapping[str, Callable[[Any, Scorer, Ranks], UpdateRule]] = {
    "comparison_oracle": ComparisonOracleStep,
    "fast_slow": FastSlowStep,
}
"""The rules of objectives that name one."""


def update_rule(objective: Objective, exact: bool, scorer: Scorer, ranks: Ranks) -> UpdateRule:
    """The rule that the objective names; else its gradient, row by row or, unless it is ``exact``, of the
    whole step.

    Raises :class:`PreferoError` for a sum with a part that names a rule: a sum steps by its gradient.
    """
    if objective.update is not None:
        return RULES[objective.update](objective, scorer, ranks)
    for part in objective.modules():
        if isinstance(part, Objective) and part.update is not None:
            raise PreferoError(
                f"{part.key or type(part).__name__} steps by a rule of its own ({part.update}), so it "
                "cannot be added to another objective"
            )
    return (BackwardAndStep if exact else WholeStep)(objective, scorer, ranks)
