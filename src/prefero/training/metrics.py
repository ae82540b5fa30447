"""From a scored micro-batch to logged numbers: one an example by name, and their averages.

:func:`measure` names the numbers of a batch, :class:`StepLog` averages them between two logs of training, and
:func:`evaluate` keeps them for every held-out example.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from prefero.evaluate.ranking import ranking_accuracy
from prefero.models.loading import evaluating
from prefero.models.signals import ROUTER_LOSS
from prefero.objectives.batch import PreferenceBatch, Signal
from prefero.objectives.compare import Objective, Sum, primary
from prefero.objectives.quantities import per_response, present
from prefero.training.batches import MicroBatch
from prefero.training.step import Ranks, Scorer, Share, gathered

MONITORED = {
    "entropy": Signal("entropy", options=(("detached", 1),)),
    "top_k_mass": Signal("top_k_mass", options=(("k", 5), ("detached", 1))),
}
"""Signals that are logged although no objective needs them; without a gradient they cost next to nothing."""

# One number an example


class Measured(NamedTuple):
    """One number an example, and how much it counts: 0 for examples that do not have it."""

    values: Float[Tensor, " example"]
    weights: Float[Tensor, " example"]


@torch.no_grad()
def measure(batch: PreferenceBatch, objective: Objective) -> dict[str, Measured]:
    """The numbers that are logged of a scored batch, by name; no model runs for it.

    ``rewards/…`` are the values of the quantity that the objective compares, ``logps/…`` the policy's sums
    over tokens, ``lengths/…`` the scored tokens, ``log_ratios/…`` the sums of log π − log π_ref; for pairs by
    role, for labelled responses ``desirable`` and ``undesirable``, for lists ``best`` and ``worst``.
    ``rewards/accuracies`` is the share of pairs that the rewards order as the data do, where equal rewards
    count half, so that a policy that has not moved has 50 %. ``kl`` is the mean
    log-ratio of all responses: an estimate of KL(π ‖ π_ref) as far as the responses are the policy's own.
    ``entropy`` and ``top_k_mass`` are means over tokens, where the model was asked for them. ``router_loss``
    is the loss that balances the policy's experts, without its coefficient.
    """
    there = present(batch)
    sums = {name: torch.where(logps.mask, logps.logps, 0).sum(-1) for name, logps in batch.models.items()}
    numbers = {"logps": sums["policy"], "lengths": batch.lengths}
    if "reference" in sums:
        numbers["log_ratios"] = sums["policy"] - sums["reference"]
    compared = primary(objective)
    if compared is not None:
        reward = compared.reward
        # some contrasts look at tokens or segments: their reward is one number a token
        numbers["rewards"] = per_response(reward.sum() if reward(batch).dim() > 2 else reward, batch)

    groups = _groups(batch, there)
    averaged = {f"{name}/{group}": (numbers[name], groups[group]) for name in numbers for group in groups}
    if "log_ratios" in numbers:
        averaged["kl"] = numbers["log_ratios"], there
    result: dict[str, Measured] = {}
    for name, (values, members) in averaged.items():
        count = members.sum(1)
        mean = torch.where(members, values, 0).sum(1) / count.clamp(min=1)
        result[name] = Measured(mean, count.to(values.dtype))
    if "rewards" in numbers:
        result |= _agreement(batch, numbers["rewards"], there)
    for name, signal in MONITORED.items():
        if signal in batch.models["policy"].signals:
            values = torch.where(batch.mask, batch.models["policy"].signals[signal], 0)
            tokens = batch.lengths.sum(1)
            result[name] = Measured(values.sum((1, 2)) / tokens.clamp(min=1), tokens)
    balancing = batch.models["policy"].signals.get(ROUTER_LOSS)
    if balancing is not None:
        result["router_loss"] = Measured(balancing, torch.ones_like(balancing))
    return result


def _groups(batch: PreferenceBatch, there: Bool[Tensor, "example response"]) -> dict[str, Tensor]:
    """The responses that are averaged together, by the name of their group."""
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
    """The numbers that order the responses of a list, higher for better."""
    if "score" in batch.columns:
        return batch.columns["score"]
    return -batch.columns["rank"].float() if "rank" in batch.columns else None


def _agreement(batch: PreferenceBatch, rewards: Tensor, there: Tensor) -> dict[str, Measured]:
    """Whether the rewards order the responses as the data do; a tie of rewards counts half."""
    if {"chosen", "rejected"} <= set(batch.roles):
        chosen, rejected = batch.roles.index("chosen"), batch.roles.index("rejected")
        margin = rewards[:, chosen] - rewards[:, rejected]
        weight = (there[:, chosen] & there[:, rejected]).to(rewards.dtype)
        return {
            "rewards/margins": Measured(margin, weight),
            "rewards/accuracies": Measured((margin.sign() + 1) / 2, weight),
        }
    order = _goodness(batch)
    if batch.roles or "label" in batch.columns or order is None:
        return {}
    better = (order[:, :, None] > order[:, None, :]) & there[:, :, None] & there[:, None, :]
    right = ((rewards[:, :, None] - rewards[:, None, :]).sign() + 1) / 2
    pairs = better.sum((1, 2))
    share = torch.where(better, right, 0).sum((1, 2)) / pairs.clamp(min=1)
    return {"rewards/accuracies": Measured(share.to(rewards.dtype), pairs.to(rewards.dtype))}


def with_margin(means: dict[str, float]) -> dict[str, float]:
    """Averages with the reward margin of two groups that no example has both of: desirable and undesirable,
    or best and worst."""
    for better, worse in (("desirable", "undesirable"), ("best", "worst")):
        pair = f"rewards/{better}", f"rewards/{worse}"
        if "rewards/margins" not in means and all(name in means for name in pair):
            means["rewards/margins"] = means[pair[0]] - means[pair[1]]
    return means


def term_names(objective: Objective, batch: PreferenceBatch) -> list[str]:
    """A name for each term of the objective: ``terms/`` and the method that it comes from, numbered where a
    method has several terms."""
    keys = _term_keys(objective, batch)
    return [
        f"terms/{key}" if keys.count(key) == 1 else f"terms/{key}-{keys[: place + 1].count(key)}"
        for place, key in enumerate(keys)
    ]


def _term_keys(objective: Any, batch: PreferenceBatch) -> list[str]:
    if isinstance(objective, Sum):
        keys = [key for part in objective.parts for key in _term_keys(part, batch)]
        return keys if objective.key is None or len(set(keys)) > 1 else [objective.key] * len(keys)
    return [objective.key or type(objective).__name__.lower()] * len(objective.counts(batch))


# Averages between two logs


@dataclass(eq=False)
class StepLog:
    """Averages since the last log, over the examples of all ranks.

    ``sum_over_ranks`` adds up a tensor on ``device``; the names are the same in one order on every rank.
    ``since`` is when the clock of the rates was started; it is moved past what is no training.
    """

    sum_over_ranks: Callable[[Tensor], Tensor]
    device: torch.device
    since: float = field(default_factory=time.monotonic)
    totals: dict[str, Tensor] = field(default_factory=dict)
    """By name, the weighted total and the weight."""
    tokens: int = 0
    examples: int = 0

    def add(self, batch: MicroBatch, share: Share, objective: Objective) -> None:
        """Count a micro-batch that was scored; a dummy counts its tokens alone."""
        additions = {
            name: ((values * weights).sum() * batch.weight, weights.sum() * batch.weight)
            for name, (values, weights) in measure(share.batch, objective).items()
        }
        if len(share.terms) > 1:
            additions |= zip(term_names(objective, share.batch), share.terms, strict=True)
        for name, addition in additions.items():
            total = torch.stack(addition).detach().float()
            self.totals[name] = self.totals[name] + total if name in self.totals else total
        self.tokens += len(batch.inputs)
        self.examples += int(batch.weight) * len(batch)

    def state(self) -> dict[str, Any]:
        """The counts of this rank since the last log, as JSON has them."""
        totals = {name: total.tolist() for name, total in self.totals.items()}
        seconds = time.monotonic() - self.since
        return {"totals": totals, "tokens": self.tokens, "examples": self.examples, "seconds": seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a :meth:`state`."""
        self.totals = {
            name: torch.tensor(total, device=self.device) for name, total in state["totals"].items()
        }
        self.tokens, self.examples = state["tokens"], state["examples"]
        self.since = time.monotonic() - state["seconds"]

    def drain(self) -> dict[str, float]:
        """The averages and rates, and a fresh start."""
        counted = torch.tensor([[self.tokens, self.examples]], dtype=torch.float32, device=self.device)
        sums = self.sum_over_ranks(torch.cat([*(total[None] for total in self.totals.values()), counted]))
        means = {
            name: (total / weight).item()
            for name, (total, weight) in zip(self.totals, sums[:-1], strict=True)
            if weight > 0
        }
        now = time.monotonic()
        tokens, examples = (sums[-1] / max(now - self.since, 1e-9)).tolist()
        self.totals, self.tokens, self.examples, self.since = {}, 0, 0, now
        return {**with_margin(means), "tokens_per_second": tokens, "examples_per_second": examples}


# Held-out examples


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
        return {"loss": self.loss, **with_margin(means)}

    def predictions(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """The ``reward``, ``logps`` (sum over tokens) and ``length`` of every example's responses by role, or
        by group where responses have no roles; NaN where an example has no such response."""
        arrays: dict[str, dict[str, NDArray[np.float64]]] = {"reward": {}, "logps": {}, "length": {}}
        for name, values in self.values.items():
            quantity, _, role = name.partition("/")
            if quantity in ("rewards", "logps", "lengths") and role not in ("margins", "accuracies"):
                key = "logps" if quantity == "logps" else quantity.removesuffix("s")
                arrays[key][role] = np.where(self.weights[name] > 0, values, np.nan)
        return arrays


@torch.no_grad()
def evaluate(
    policy: nn.Module,
    batches: Iterable[MicroBatch],
    objective: Objective,
    scorer: Scorer,
    ranks: Ranks,
    *,
    batches_per_step: int,
    exact: bool,
    extra: frozenset[Signal] = frozenset(),
    progress: float = 0.0,
) -> Evaluated:
    """Measure the micro-batches of all ranks.

    An objective that is a sum over examples is averaged over all of them; any other is evaluated on groups as
    large as an optimizer step, and averaged over these by their number of examples. ``extra`` signals of the
    policy are measured besides those that the objective needs.
    """
    measured: list[_Part] = []
    sums: list[Tensor] = []
    steps: list[tuple[float, int]] = []
    iterator = iter(batches)
    with evaluating(policy), evaluating(objective):
        while step := list(islice(iterator, batches_per_step)):
            scored = []
            for batch in step:
                scores = scorer(policy, batch.to(ranks.device), extra=extra, progress=progress)
                scored.append(scores)
                if batch.weight > 0:
                    measured.append((batch.examples, _on_cpu(measure(scores, objective))))
                if exact:
                    pairs = [torch.stack([term.total, term.count]) for term in objective(scores)]
                    sums.append(torch.stack(pairs).double().cpu() * batch.weight)
            if not exact:
                whole, examples = gathered(scored, step, ranks)
                steps.append((float(objective.loss(whole)), len(examples)))
    if exact:
        totals, counts = ranks.sum(torch.stack(sums).sum(0).to(ranks.device)).unbind(1)
        loss = float((totals / counts.clamp(min=1)).sum())
    else:
        loss = sum(value * size for value, size in steps) / sum(size for _, size in steps)
    return _in_order(loss, ranks.gather(measured))


_Part = tuple[Int[Tensor, " example"], dict[str, Measured]]
"""The measures of a micro-batch, and the places of its examples in the data set."""


def _on_cpu(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    return {name: Measured(values.cpu(), weights.cpu()) for name, (values, weights) in measured.items()}


def _in_order(loss: float, parts: Sequence[_Part]) -> Evaluated:
    examples = torch.cat([places for places, _ in parts]).numpy()
    order = np.argsort(examples, kind="stable")
    values, weights = {}, {}
    for name in dict.fromkeys(name for _, measured in parts for name in measured):
        both = np.zeros((2, len(examples)))
        start = 0
        for places, measured in parts:
            stop = start + len(places)
            if name in measured:
                both[:, start:stop] = np.stack([side.double().numpy() for side in measured[name]])
            start = stop
        values[name], weights[name] = both[:, order]
    return Evaluated(loss, values, weights, len(examples))


def held_out_row(method: str, evaluated: Evaluated) -> dict[str, Any]:
    """A row of ``evaluation.json``: the share of held-out pairs that the reward orders as the data do, with
    Wilson's 95 % interval over pairs, where the objective compares pairs; and the objective's loss."""
    row: dict[str, Any] = {"method": method, "loss": evaluated.loss, "interval": {}}
    margins = evaluated.values.get("rewards/margins")
    if margins is not None:
        ranking = ranking_accuracy(margins[evaluated.weights["rewards/margins"] > 0].tolist())
        row["accuracy"] = ranking.accuracy
        row["interval"]["accuracy"] = [ranking.interval.low, ranking.interval.high]
    return row
