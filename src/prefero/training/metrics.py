"""Named numbers of a batch that is already scored, one an example, and their averages between two logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch, Signal
from prefero.objectives.compare import Objective, Sum, primary
from prefero.objectives.quantities import per_response, present
from prefero.training.batches import joined, taken
from prefero.training.step import Ranks, Scorer, Share, to_device

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


class StepLog:
    """Averages over the examples of all ranks; ``sum_over_ranks`` adds up a tensor on ``device``."""

    def __init__(self, sum_over_ranks: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.sum_over_ranks, self.device = sum_over_ranks, device
        self._averages = Averages()
        self._tokens, self._examples = 0, 0
        self._since = time.monotonic()

    def start(self) -> None:
        """The clock starts anew."""
        self._since = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Some seconds were no training."""
        self._since += seconds

    def add(self, row: Mapping[str, Any], share: Share, objective: Objective) -> None:
        self._averages.add(measure(share.batch, objective), row["weight"])
        if len(share.terms) > 1:
            names = term_names(objective, share.batch)
            for name, (total, count) in zip(names, share.terms, strict=True):
                self._averages.add_total(name, total, count)
        self._tokens += len(row["inputs"])
        self._examples += int(row["weight"]) * len(row["example"])

    def drain(self) -> dict[str, float]:
        """What is logged, and a fresh start."""
        found = self._averages.drain(self.sum_over_ranks)
        seconds = max(time.monotonic() - self._since, 1e-9)
        seen = torch.tensor([self._tokens, self._examples], dtype=torch.float32, device=self.device)
        rates = (self.sum_over_ranks(seen) / seconds).tolist()
        self._tokens, self._examples = 0, 0
        self.start()
        return {**found, "tokens_per_second": rates[0], "examples_per_second": rates[1]}


@dataclass(frozen=True)
class Evaluated:
    """``values`` and ``weights`` by metric, one number an example in the order of the data set; an example
    that does not have a metric has weight 0. ``loss`` is the objective's."""

    loss: float
    values: Mapping[str, NDArray[np.float64]]
    weights: Mapping[str, NDArray[np.float64]]
    examples: int

    def means(self) -> dict[str, float]:
        means = {
            name: float(np.average(values, weights=self.weights[name]))
            for name, values in self.values.items()
            if self.weights[name].sum() > 0
        }
        return {"loss": self.loss, **with_differences(means)}


@torch.no_grad()
def evaluate(
    policy: nn.Module,
    rows: Iterable[Mapping[str, Any]],
    objective: Objective,
    scorer: Scorer,
    ranks: Ranks,
    *,
    rows_per_step: int,
    exact: bool,
    extra: frozenset[Signal] = frozenset(),
    progress: float = 0.0,
) -> Evaluated:
    """Measure the rows of all ranks.

    An objective that is a sum over examples is averaged over all of them; any other is evaluated on groups as
    large as an optimizer step, and averaged over these by their number of examples. ``extra`` signals of the
    policy are measured besides those that the objective needs.
    """
    training = policy.training, objective.training
    policy.eval(), objective.eval()
    found: list[dict[str, Any]] = []
    totals, counts = torch.zeros(0), torch.zeros(0)
    steps: list[tuple[float, int]] = []
    iterator = iter(rows)
    while group := list(islice(iterator, rows_per_step)):
        scored = []
        for row in group:
            row = to_device(row, ranks.device)
            batch = scorer(policy, row, extra=extra, progress=progress)
            scored.append((batch, row))
            if row["weight"] > 0:
                found.append(
                    {"example": row["example"].cpu(), "measured": to_device(measure(batch, objective), "cpu")}
                )
            if exact:
                terms = objective(batch)
                weight = row["weight"].cpu()
                total = torch.stack([term.total for term in terms]).double().cpu() * weight
                count = torch.stack([term.count for term in terms]).double().cpu() * weight
                totals, counts = (totals + total, counts + count) if len(totals) else (total, count)
        if not exact:
            steps.append(_step_loss(scored, objective, ranks))
    policy.train(training[0]), objective.train(training[1])
    if exact:
        totals, counts = ranks.sum(torch.stack([totals, counts]).to(ranks.device))
        loss = float((totals / counts.clamp(min=1)).sum())
    else:
        loss = sum(value * size for value, size in steps) / sum(size for _, size in steps)
    return _in_order(loss, ranks.gather(found))


def _step_loss(scored: Sequence[tuple[Any, Any]], objective: Objective, ranks: Ranks) -> tuple[float, int]:
    mine = [to_device((batch, row["example"], row["weight"]), "cpu") for batch, row in scored]
    everyone = [part for part in ranks.gather(mine) if part[2] > 0]
    order = torch.cat([example for _, example, _ in everyone]).argsort(stable=True)
    whole = taken(joined([batch for batch, _, _ in everyone]), order)
    return float(objective.loss(to_device(whole, ranks.device))), len(order)


def _in_order(loss: float, found: Sequence[Mapping[str, Any]]) -> Evaluated:
    examples = torch.cat([part["example"] for part in found]).numpy()
    names = dict.fromkeys(name for part in found for name in part["measured"])
    values, weights = {}, {}
    for name in names:
        both = np.zeros((2, len(examples)))
        start = 0
        for part in found:
            stop = start + len(part["example"])
            if name in part["measured"]:
                both[:, start:stop] = np.stack([side.double().numpy() for side in part["measured"][name]])
            start = stop
        order = np.argsort(examples, kind="stable")
        values[name], weights[name] = both[:, order]
    return Evaluated(loss, values, weights, len(examples))
