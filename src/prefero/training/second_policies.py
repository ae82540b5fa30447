"""Models that an objective trains beside the policy: their place in the optimizer, and the policy's place."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from prefero.errors import PreferoError
from prefero.reference.providers import Trained
from prefero.reference.resolve import References


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
