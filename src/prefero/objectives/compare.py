"""Objectives: comparisons of rewards, distributions over a list matched to scores, and sums of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.contrasts import Comparisons, Contrast, Each, Pair, PerComparison
from prefero.objectives.links import Link, identity, logistic
from prefero.objectives.quantities import Logp, Quantity, per_response, present
from prefero.objectives.reductions import Reduction, Term, mean_of_sums, mean_of_tokens, number
from prefero.objectives.signals import States

Slot = float | PerComparison
"""A number, or what makes one for every comparison."""


class Objective(nn.Module):
    """A batch in, terms out: a function of the batch and of its own buffers, with no other state.

    ``key`` and ``arguments`` say how the registry built it; ``arguments`` can be written as JSON. ``update``
    names the rule of an objective whose step is not, or not only, its gradient's. ``trains`` are the models
    that it trains beside the policy, each with the share of the policy's learning rate that it gets unless
    told. ``learning_rate`` is the policy's, where one was published with the settings it is configured with.
    ``states`` are those in which its method scores responses, if it is made for some.
    """

    key: str | None = None
    update: str | None = None
    trains: Mapping[str, float] = MappingProxyType({})
    learning_rate: float | None = None
    states: States | None = None
    arguments: Mapping[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.arguments = {}

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        raise NotImplementedError

    def loss(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        """The loss of a batch that is a whole optimizer step."""
        terms = self(batch)
        return sum((term.total / term.count.clamp(min=1) for term in terms), batch.lengths.new_zeros(()))

    @torch.no_grad()
    def counts(self, batch: PreferenceBatch) -> list[Float[Tensor, ""]]:
        """The denominators of the terms, without moving any running statistic.

        Those of exact terms do not depend on the log-probabilities, which may therefore all be 0.
        """
        training = self.training
        self.eval()
        try:
            return [term.count for term in self(batch)]
        finally:
            self.train(training)

    def __add__(self, other: Objective) -> Objective:
        return Sum((1.0, self), (1.0, other))

    def __rmul__(self, coefficient: float) -> Objective:
        return Sum((coefficient, self))


class Sum(Objective):
    """Objectives times coefficients."""

    def __init__(self, *parts: tuple[float, Objective]) -> None:
        super().__init__()
        self.coefficients = [coefficient for coefficient, _ in parts]
        self.parts = nn.ModuleList(part for _, part in parts)

    def weighted_parts(self) -> list[tuple[float, Objective]]:
        return list(zip(self.coefficients, cast("list[Objective]", list(self.parts)), strict=True))

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        return [
            replace(
                term,
                total=coefficient * term.total,
                values=None if term.values is None else coefficient * term.values,
            )
            for coefficient, part in self.weighted_parts()
            for term in part(batch)
        ]


class RunningStatistic(nn.Module):
    """State that a :class:`Compare` moves once per call in training, before any slot reads it.

    Its objective is not exact, so training calls it once per optimizer step, with the whole step.
    """

    whole_step = True

    def observe(self, comparisons: Comparisons) -> None:
        raise NotImplementedError


class Compare(Objective):
    """``reduce(weight · link(scale · (contrast(reward) − target)))``.

    ``target``, ``scale`` and ``weight`` are numbers, or functions of the
    :class:`~prefero.objectives.contrasts.Comparisons`; state among them is a :class:`RunningStatistic`. They
    pass gradients unless they detach.
    """

    def __init__(
        self,
        reward: Quantity,
        contrast: Contrast | None = None,
        link: Link = logistic,
        *,
        target: Slot = 0.0,
        scale: Slot = 1.0,
        weight: Slot = 1.0,
        reduce: Reduction = mean_of_sums,
    ) -> None:
        super().__init__()
        self.reward, self.contrast, self.link = reward, contrast or Pair(), link
        self.target, self.scale, self.weight, self.reduce = target, scale, weight, reduce

    def comparisons(self, batch: PreferenceBatch) -> Comparisons:
        """The margins of the reward, with neither target nor scale."""
        margins, mask = self.contrast(self.reward, batch)
        return Comparisons(batch, self.contrast, torch.where(mask, margins, 0), mask)

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        comparisons = self.comparisons(batch)
        if self.training:
            for module in self.modules():
                if isinstance(module, RunningStatistic):
                    module.observe(comparisons)
        target, scale, weight = (fill(slot, comparisons) for slot in (self.target, self.scale, self.weight))
        losses = weight * self.link(scale * (comparisons.margins - target), comparisons)
        terms = self.reduce(torch.where(comparisons.mask, losses, 0), comparisons)
        whole_step = any(getattr(module, "whole_step", False) for module in self.modules())
        return [replace(term, exact=False) for term in terms] if whole_step else terms


def fill(slot: Slot, comparisons: Comparisons) -> Tensor | float:
    """The slot's numbers; 0 where no comparison exists, so that nothing made of absent data spreads."""
    return torch.where(comparisons.mask, slot(comparisons), 0) if callable(slot) else slot


class Match(Objective):
    """The distribution that the rewards of a list imply, matched to the one that its scores imply.

    p = softmax of ``reward`` and q = softmax of ``score`` over an example's responses. The divergence is
    KL(p ‖ q) (``reverse_kl``), KL(q ‖ p) (``forward_kl``) or −Σ q log p (``cross_entropy``), averaged
    over the examples with at least two responses.
    """

    def __init__(
        self,
        reward: Quantity,
        score: Quantity,
        divergence: Literal["reverse_kl", "forward_kl", "cross_entropy"],
    ) -> None:
        super().__init__()
        self.reward, self.score, self.divergence = reward, score, divergence

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        there = present(batch)
        log_p, log_q = (log_softmax_of(per_response(of, batch), there) for of in (self.reward, self.score))
        if self.divergence == "reverse_kl":
            values = (log_p.exp() * (log_p - log_q)).sum(1)
        elif self.divergence == "forward_kl":
            values = (log_q.exp() * (log_q - log_p)).sum(1)
        else:
            values = -(log_q.exp() * log_p).sum(1)
        return [Term(values.sum(), number(there.sum(1) > 1, values), True, values)]


def log_softmax_of(
    values: Float[Tensor, "example response"], there: Tensor
) -> Float[Tensor, "example response"]:
    """Log-softmax over the responses that are there; 0 elsewhere."""
    lowest = torch.finfo(values.dtype).min
    return torch.where(there, torch.where(there, values, lowest).log_softmax(1), 0)


def penalty(
    quantity: Quantity, address: str | None = None, *, weight: Slot = 1.0, reduce: Reduction = mean_of_sums
) -> Compare:
    """The quantity itself as a cost, of the responses at an address or of all."""
    return Compare(quantity, Each(address), identity, weight=weight, reduce=reduce)


def negative_log_likelihood(
    address: str | None = "chosen", tokens: Literal["mean", "sum", "batch"] = "mean"
) -> Compare:
    """−log π of the responses at an address: the mean or the sum over the tokens of each, or the mean over
    all their tokens in the optimizer step (``batch``). The three are not multiples of each other."""
    if tokens == "mean":
        return penalty(-Logp().mean(), address)
    return penalty(-Logp().sum(), address, reduce=mean_of_sums if tokens == "sum" else mean_of_tokens)


def is_penalty(objective: nn.Module) -> bool:
    return isinstance(objective, Compare) and objective.link is identity


def primary(objective: Objective) -> Compare | Match | None:
    """The part whose ``reward`` a log should show: the first that is no penalty, None if there is none."""
    if isinstance(objective, Sum):
        found = (primary(part) for _, part in objective.weighted_parts())
        return next((part for part in found if part is not None), None)
    if isinstance(objective, Match) or (isinstance(objective, Compare) and not is_penalty(objective)):
        return objective
    return None
