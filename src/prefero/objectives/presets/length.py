"""How long a response is and where its tokens stand: against length bias, and discounts over time."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import Constant, Length, Map, Position, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, NonZeroShare, Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import StepCount, StepIndex
from prefero.objectives.slots import length_gap, tail_weight


@published(
    title="R-DPO: length-regularised DPO",
    paper="p027",
    citation="Park et al., 2024, arXiv 2403.19159; iterated by Liu et al., 2024, arXiv 2406.11817",
    equation="−log σ(β h + α (|y_w| − |y_l|))",
    relatives=(
        "Plus, not minus: the length explains part of the label away, so long chosen responses pull less. α "
        "is in reward units per token and outside β. rdpo is another method (label noise)."
    ),
    pitfalls=(
        "With the sign of the bonus wrong the policy gets longer, not shorter. A large α prefers short "
        "answers whatever they say."
    ),
    aliases=("ilr_dpo",),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
)
def r_dpo(beta: Positive = 0.1, alpha: NonNegative = 0.02) -> Objective:
    """The reward has a fixed bonus for length, so that the policy need not explain labels by length."""
    return Compare(beta * log_ratio().sum(), target=length_gap(alpha))


@published(
    title="LD-DPO: length desensitisation",
    paper="p070",
    citation="Liu et al., 2024, arXiv 2409.06411",
    equation="DPO with log π̂(y) = Σ_{t≤p} log π(y_t) + α Σ_{t>p} log π(y_t), p = min(|y_w|, |y_l|)",
    relatives=(
        "α = 1 is DPO, α = 0 cuts both responses at the shorter length. The reference's tail is weighted too."
    ),
    pitfalls="What the longer response says at its end is learnt less, also where just that makes it better.",
    equals=(Equal("dpo", at={"alpha": 1.0}),),
)
def ld_dpo(beta: Positive = 0.1, alpha: Share = 0.5) -> Objective:
    """What a response says beyond the other's length counts α as much."""
    return Compare(beta * (tail_weight(alpha) * log_ratio()).sum())


@published(
    title="DPO by tokens: length-normalised DPO",
    citation="Lambert et al., 2024, arXiv 2411.15124; TRL's sigmoid_norm",
    equation="−log σ(β/|y_w| log π(y_w)/π_ref(y_w) − β/|y_l| log π(y_l)/π_ref(y_l))",
    settings={"tülu-3-8b": {"beta": 5.0, "learning_rate": 5e-7}, "tülu-3-70b": {"learning_rate": 2e-7}},
    relatives=(
        "simpo with a reference and without a margin. β acts on a mean over tokens: dpo's values are tens of "
        "times too small."
    ),
    aliases=("sigmoid_norm",),
)
def dpo_norm(beta: Positive = 5.0) -> Objective:
    """The mean log-ratio per token is the reward, so that length by itself earns nothing."""
    return Compare(beta * log_ratio().mean())


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
