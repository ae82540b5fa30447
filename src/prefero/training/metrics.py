"""Named numbers of a batch that is already scored, one an example, and their averages between two logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch, Signal
from prefero.objectives.compare import Objective, Sum, primary
from prefero.objectives.quantities import per_response, present

MONITORED = {
    "entropy": Signal("entropy", options=(("detached", 1),)),
    "top_k_mass": Signal("top_k_mass", options=(("k", 5), ("detached", 1))),
}
"""Signals that are logged although no objective needs them; without a gradient they cost next to nothing."""


class Measured(NamedTuple):
    """One number an example, and how much it counts: 0 for examples that do not have it."""

    values: Float[Tensor, "example"]
    weights: Float[Tensor, "example"]


@torch.no_grad()
def measure(batch: PreferenceBatch, objective: Objective) -> dict[str, Measured]:
    """What is logged of a scored batch, by name; no model runs for it.

    ``rewards/…`` are the values of the quantity that the objective compares, ``logps/…`` the policy's sums
    over tokens, ``lengths/…`` the scored tokens, ``log_ratios/…`` the sums of log π − log π_ref; for pairs by
    role, for labelled responses ``desirable`` and ``undesirable``, for lists ``best`` and ``worst``.
    ``rewards/accuracies`` is the share of pairs that the rewards order as the data do. ``kl`` is the mean
    log-ratio of all responses: an estimate of KL(π ‖ π_ref) as far as the responses are the policy's own.
    ``entropy`` and ``top_k_mass`` are means over tokens, where the model was asked for them.
    """
    there = present(batch)
    per_model = {
        name: torch.where(logps.mask, logps.logps, 0).sum(-1) for name, logps in batch.models.items()
    }
    numbers = {"logps": per_model["policy"], "lengths": batch.lengths}
    if "reference" in per_model:
        numbers["log_ratios"] = per_model["policy"] - per_model["reference"]
    compared = primary(objective)
    if compared is not None:
        reward = compared.reward
        # some contrasts look at tokens or segments: their reward is one number a token
        numbers["rewards"] = per_response(reward.sum() if reward(batch).dim() > 2 else reward, batch)

    result: dict[str, Measured] = {}
    groups = _groups(batch, there)
    for name, values in numbers.items():
        for group, members in groups.items():
            result[f"{name}/{group}"] = _over_responses(values, members)
    if "rewards" in numbers:
        result |= _agreement(batch, numbers["rewards"], there)
    if "log_ratios" in numbers:
        result["kl"] = _over_responses(numbers["log_ratios"], there)
    for name, signal in MONITORED.items():
        if signal in batch.models["policy"].signals:
            values = torch.where(batch.mask, batch.models["policy"].signals[signal], 0)
            tokens = batch.lengths.sum(1)
            result[name] = Measured(values.sum((1, 2)) / tokens.clamp(min=1), tokens)
    return result


def _groups(batch: PreferenceBatch, there: Bool[Tensor, "example response"]) -> dict[str, Tensor]:
    if batch.roles:
        at = torch.eye(len(batch.roles), dtype=torch.bool, device=there.device)
        return {role: there & at[place] for place, role in enumerate(batch.roles)}
    if "label" in batch.columns:
        label = batch.columns["label"]
        return {"desirable": there & (label > 0), "undesirable": there & (label < 0)}
    order = _goodness(batch)
    if order is None:
        return {"all": there}
    best = torch.where(there, order, -torch.inf).amax(1, keepdim=True)
    worst = torch.where(there, order, torch.inf).amin(1, keepdim=True)
    return {"best": there & (order == best), "worst": there & (order == worst)}


def _goodness(batch: PreferenceBatch) -> Tensor | None:
    """What orders the responses of a list, higher for better."""
    if "score" in batch.columns:
        return batch.columns["score"]
    return -batch.columns["rank"].float() if "rank" in batch.columns else None


def _over_responses(values: Tensor, members: Tensor) -> Measured:
    count = members.sum(1)
    return Measured(torch.where(members, values, 0).sum(1) / count.clamp(min=1), count.to(values.dtype))


def _agreement(batch: PreferenceBatch, rewards: Tensor, there: Tensor) -> dict[str, Measured]:
    """Whether the rewards order the responses as the data do; a tie of rewards counts as wrong."""
    if {"chosen", "rejected"} <= set(batch.roles):
        chosen, rejected = batch.roles.index("chosen"), batch.roles.index("rejected")
        margin = rewards[:, chosen] - rewards[:, rejected]
        weight = (there[:, chosen] & there[:, rejected]).to(rewards.dtype)
        return {
            "rewards/margins": Measured(margin, weight),
            "rewards/accuracies": Measured((margin > 0).to(rewards.dtype), weight),
        }
    order = _goodness(batch)
    if batch.roles or "label" in batch.columns or order is None:
        return {}
    better = (order[:, :, None] > order[:, None, :]) & there[:, :, None] & there[:, None, :]
    right = better & (rewards[:, :, None] > rewards[:, None, :])
    pairs = better.sum((1, 2))
    share = right.sum((1, 2)) / pairs.clamp(min=1)
    return {"rewards/accuracies": Measured(share.to(rewards.dtype), pairs.to(rewards.dtype))}


def term_names(objective: Objective, batch: PreferenceBatch) -> list[str]:
    """A name for each term of the objective: ``terms/`` and the method that it comes from, numbered where
    that is not one name a term."""
    keys = _term_keys(objective, batch)
    return [
        f"terms/{key}" if keys.count(key) == 1 else f"terms/{key}-{keys[: place + 1].count(key)}"
        for place, key in enumerate(keys)
    ]


def _term_keys(objective: Any, batch: PreferenceBatch) -> list[str]:
    if isinstance(objective, Sum):
        found = [key for part in objective.parts for key in _term_keys(part, batch)]
        return found if objective.key is None or len(set(found)) > 1 else [objective.key] * len(found)
    return [objective.key or type(objective).__name__.lower()] * len(objective.counts(batch))


class Averages:
    """Weighted sums of what was measured since the last log; the same names in one order on every rank."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, measured: Mapping[str, Measured], weight: Tensor) -> None:
        """``weight`` is 0 for a row of copies, which must not count."""
        for name, (values, weights) in measured.items():
            self.add_total(name, (values * weights).sum() * weight, weights.sum() * weight)

    def add_total(self, name: str, total: Tensor, count: Tensor) -> None:
        addition = torch.stack([total.detach(), count.detach()]).float()
        self._sums[name] = self._sums[name] + addition if name in self._sums else addition

    def drain(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The averages, and a fresh start. ``reduce`` sums a tensor over ranks."""
        if not self._sums:
            return {}
        names = list(self._sums)
        sums = reduce(torch.stack([self._sums[name] for name in names]))
        self._sums = {}
        means = {
            name: (total / weight).item()
            for name, (total, weight) in zip(names, sums, strict=True)
            if weight > 0
        }
        return with_differences(means)


def with_differences(means: dict[str, float]) -> dict[str, float]:
    """The margin between two groups that no example has both of."""
    for better, worse in (("desirable", "undesirable"), ("best", "worst")):
        pair = f"rewards/{better}", f"rewards/{worse}"
        if "rewards/margins" not in means and all(name in means for name in pair):
            means["rewards/margins"] = means[pair[0]] - means[pair[1]]
    return means
