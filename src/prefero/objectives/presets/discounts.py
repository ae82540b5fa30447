"""Discounts over time: what comes early in a response counts more."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import Constant, Length, Map, Position, Quantity, log_ratio
from prefero.objectives.ranges import NonZeroShare, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.steps import StepCount, StepIndex

Discount = Literal["none", "cos", "linear"]


def position_discount(kind: Discount) -> Quantity:
    """The weight of the token at place i = 0, …, n−1 of n: 1, (1 + cos(πi/n))/2 or (n−i)/n."""
    if kind == "none":
        return Constant(1.0)
    share = (Position() - 1) / Length().map(lambda length: length.clamp(min=1)).per_token()
    return share.map(raised_cosine) if kind == "cos" else 1 - share


def raised_cosine(share: Tensor) -> Tensor:
    """(1 + cos(π share))/2, in single precision as the authors have it: near 0 the rounding shows."""
    return (1 + torch.cos(math.pi * share.float())) / 2


@published(
    title="LLaVA-Reasoner: position-discounted DPO",
    paper="p008",
    citation="Zhang et al., 2024, arXiv 2410.16198; code RifleZhang/LLaVA-Reasoner-DPO",
    equation="−log σ(β Σ_i d(i, |y_w|) Δ_i − β Σ_i d(i, |y_l|) Δ_i), d = (1 + cos(πi/n))/2 or (n−i)/n",
    feedback={"pairs"},
    settings={"default": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "The authors' main setting cuts both responses at 90 words instead, which is done to the data. The "
        "reference is discounted like the policy, each response by its own length; dmpo discounts by turn."
    ),
    pitfalls="The discounted reward is no longer the log-ratio of two normalised models.",
    equals=(Equal("dpo", at={"discount": "none"}),),
)
def discounted_dpo(beta: Positive = 0.1, discount: Discount = "cos") -> Objective:
    """DPO whose later tokens count less, so that a chain's end and its length decide less."""
    return Compare(beta * (position_discount(discount) * log_ratio()).sum())


@published(
    title="DMPO: direct multi-turn preference optimization",
    paper="p039",
    citation="Shi et al., 2024, arXiv 2406.14868; code swt-user/DMPO",
    equation="−log σ(β Σ_t φ(t,T_w) δ_t^w − β Σ_t φ(t,T_l) δ_t^l), φ(t,T) = γ^t (1−γ^{T−t}) / (1−γ^T)",
    feedback={"pairs", "steps"},
    settings={"default": {"beta": 0.1, "gamma": 0.7}},
    relatives=(
        "δ_t sums over the tokens of the agent's turn t, the column step. The first turn's weight is 1 and "
        "the weights do not add up to 1; γ = 1 is (T−t)/T. Noisy trajectories prefer a small γ."
    ),
    pitfalls="Only scored turns count: those that the prompt shows, and the environment's, have no place.",
)
def dmpo(beta: Positive = 0.1, gamma: NonZeroShare = 0.7) -> Objective:
    """DPO on trajectories of several turns, the later ones discounted: what constrains the policy is its
    state-action occupancy."""
    weight = Map(lambda turn, turns: occupancy(turn, turns, gamma), StepIndex(), StepCount().per_token())
    return Compare(beta * (weight * log_ratio()).sum())


def occupancy(turn: Tensor, turns: Tensor, gamma: float) -> Tensor:
    """γ^t (1 − γ^{T−t}) / (1 − γ^T), and its limit (T − t)/T at γ = 1."""
    if gamma == 1:
        return (turns - turn) / turns
    rate = math.log(gamma)
    # the difference to 1 loses its digits for γ near 1; expm1 keeps them
    return torch.exp(turn * rate) * torch.expm1((turns - turn) * rate) / torch.expm1(turns * rate)
