"""Rejection sampling: samples of a policy thinned out until they follow the policy tilted by a reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError

Probability = Float[Tensor, " response"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Which candidates were accepted, in that order; how many uniforms and passes over the pool it took."""

    indices: list[int]
    draws: int
    passes: int


def acceptance(rewards: Float[Tensor, " response"], beta: float) -> Probability:
    """exp((r − max r)/β): with it, samples of π become samples of π exp(r/β) up to a constant."""
    return ((rewards - rewards.max()) / beta).exp()


def rejection_sample(
    rewards: Sequence[float], *, beta: float, count: int, uniform: Callable[[], float]
) -> Accepted:
    """``count`` of the candidates, as samples of the policy tilted by exp(r/β) (Liu et al., 2023, arXiv
    2309.06657, algorithm 1).

    The candidates are visited in their order, and one is accepted with the :func:`acceptance` of its reward
    among those that were left when the pass began; the accepted leave the pool at its end. ``uniform`` draws
    from [0, 1). Candidates should be deduplicated first. β → 0 takes the best, β → ∞ the first.

    Raises:
        PreferoError: ``beta`` is not positive, ``count`` is more than there are candidates, or a reward is
            not a finite number, of which no chance follows.
    """
    if not beta > 0:
        raise PreferoError(f"beta is {beta}; expected a positive temperature.")
    if not 0 <= count <= len(rewards):
        raise PreferoError(f"count is {count}; there are {len(rewards)} candidates to accept.")
    for place, reward in enumerate(rewards):
        if not math.isfinite(reward):
            raise PreferoError(f"the reward of candidate {place + 1} is {reward}; expected a finite number.")
    pool, accepted, draws, passes = list(range(len(rewards))), list[int](), 0, 0
    values = torch.tensor(rewards, dtype=torch.float64)
    while len(accepted) < count:
        passes += 1
        chances = acceptance(values[pool], beta).tolist()
        kept = []
        for candidate, chance in zip(pool, chances, strict=True):
            if len(accepted) == count:
                break
            draws += 1
            if uniform() < chance:
                accepted.append(candidate)
            else:
                kept.append(candidate)
        pool = kept
    return Accepted(accepted, draws, passes)


def reward_from_ranker(
    probability: Float[Tensor, " response"],
) -> Float[Tensor, " response"]:
    """logit P(y ≻ y_base): a pairwise ranker against one fixed baseline response as a reward (eq. 7)."""
    return torch.logit(probability)


@dataclass(frozen=True, slots=True)
class TemperingStep:
    """A step's chances of acceptance, their mean under the distribution before it, and the distribution
    after it."""

    acceptance: Probability
    rate: float
    distribution: Probability


def tempered(
    rewards: Float[Tensor, " response"], policy: Probability, *, eta: float, steps: int
) -> list[TemperingStep]:
    """Multi-step rejection sampling on a finite set: π e^{r/η} by way of π e^{i r/(N η)}, i = 1 … N.

    Every step accepts more than a single one would; the product of their rates is its rate, and the last
    distribution its distribution. Xiong et al., 2023, arXiv 2312.11456.
    """
    taken, distribution = [], policy
    chances = acceptance(rewards, eta * steps)
    for _ in range(steps):
        weighted = distribution * chances
        rate = weighted.sum()
        distribution = weighted / rate
        taken.append(TemperingStep(chances, float(rate), distribution))
    return taken
