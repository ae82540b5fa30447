"""The two sides of a pair pull unequally: the rejected reward is multiplied, or each side meets only a part
of the other."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import Addressed, shorter_length
from prefero.objectives.compare import Compare, Objective, Sum, negative_log_likelihood
from prefero.objectives.links import Link, logistic, smoothed, squared
from prefero.objectives.quantities import Column, Linear, Logp, Quantity, Sides, log_ratio
from prefero.objectives.ranges import FlipRate, NonNegative, NonZeroShare, Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import RandomTokens


@published(
    title="DPO-Shift",
    paper="p051",
    citation="Yang et al., 2025, arXiv 2502.07599; code Meaquadddd/DPO-Shift",
    equation="−log σ(β u(y_w) − f β u(y_l)), u = log π/π_ref",
    settings={
        "fixed": {"beta": 0.01, "factor": 0.95, "learning_rate": 5e-7},
        "increasing": {"beta": 0.01, "factor": 0.75, "final_factor": 1.0, "learning_rate": 5e-7},
        "decreasing": {"beta": 0.01, "factor": 1.0, "final_factor": 0.75, "learning_rate": 5e-7},
    },
    relatives=(
        "f multiplies the whole rejected log-ratio, the reference's part too. flex_dpo is the same with two "
        "βs, mappo has one factor for every pair. With `final_factor` f goes there in a straight line over "
        "the optimizer steps, from `factor`."
    ),
    pitfalls=(
        "It trades reward margin for chosen likelihood: accuracies fall with f. f = 0 leaves the rejected "
        "response alone altogether."
    ),
    equals=(
        Equal("dpo", at={"factor": 1.0}),
        Equal("flex_dpo", at={"beta": 0.1, "factor": 0.5}, given={"beta_plus": 0.1, "beta_minus": 0.05}),
    ),
)
def dpo_shift(beta: Positive = 0.01, factor: Share = 0.95, final_factor: Share | None = None) -> Objective:
    """DPO whose rejected reward counts less, so that the chosen likelihood falls less."""
    reward = beta * log_ratio().sum()
    shift = Linear(factor, factor if final_factor is None else final_factor)
    return Compare(Sides(chosen=reward, rejected=shift * reward))


@published(
    title="Flex-DPO: a β for each side",
    paper="p059",
    citation="Yan et al., 2024, arXiv 2406.07327",
    equation="−log σ(β⁺ u(y_w) − β⁻ u(y_l)), u = log π/π_ref",
    relatives=(
        "dpo_shift with f = β⁻/β⁺. The paper's other remedy, a likelihood of the chosen response, is "
        "`plus: {nll: {coefficient: …, tokens: sum}}`. Both βs stay as they are: the text's adaptive β is "
        "this choice of two."
    ),
    pitfalls="The best β⁻ is a little below β⁺ (0.08 at 0.1), and worse again further down.",
    equals=(
        Equal("dpo", at={"beta_plus": 0.2, "beta_minus": 0.2}, given={"beta": 0.2}),
        Equal("dpo_shift", given={"beta": 0.1, "factor": 0.8}),
    ),
)
def flex_dpo(beta_plus: Positive = 0.1, beta_minus: NonNegative = 0.08) -> Objective:
    """DPO that pushes the rejected response down less hard than it pulls the chosen one up."""
    ratio = log_ratio().sum()
    return Compare(Sides(chosen=beta_plus * ratio, rejected=beta_minus * ratio))


MAPPO = "Lan et al., 2025, arXiv 2507.21183"
MAPPO_SCORES = (
    "Scores must lie between 0 and 1; `scores: sigmoid` takes raw reward-model logits there. A gap below 0, "
    "of a pair whose scores contradict its label, counts as 0, one above 1 as 1."
)
NEAR_TIES = (
    "Multiplying a log-probability by a gap below 1 raises it, so that near ties start with strongly "
    "negative margins. "
)
Scores = Literal["unit", "sigmoid"]


def prior(scores: Scores) -> Quantity:
    """Δ = s_w − s_l, ``[example 1]``, held in [0, 1]."""
    score: Quantity = Column("score")
    if scores == "sigmoid":
        score = score.map(torch.sigmoid)
    gap = Addressed(score, "chosen") - Addressed(score, "rejected")
    return gap.map(lambda gap: gap.clamp(0, 1))


def maximum_a_posteriori(reward: Quantity, scores: Scores) -> Quantity:
    """The reward, of the rejected response times the pair's score gap."""
    return Sides(chosen=reward, rejected=prior(scores) * reward)


@published(
    title="MaPPO: maximum a posteriori preference optimization",
    paper="p052",
    citation=MAPPO,
    equation="−log σ(β u(y_w) − Δ β u(y_l)), Δ = s_w − s_l in [0, 1], u = log π/π_ref",
    feedback={"pairs", "scores"},
    settings={"default": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "dpo_shift with a factor of every pair's own. mappo_simpo, mappo_ipo and mappo_cpo put the same "
        "prior into other losses. Pairs are the best and worst of 8 samples; online, of each round's policy."
    ),
    pitfalls=MAPPO_SCORES,
)
def mappo(beta: Positive = 0.1, scores: Scores = "unit") -> Objective:
    """DPO that pushes a rejected response down only as far as it is worse."""
    return Compare(maximum_a_posteriori(beta * log_ratio().sum(), scores))


@published(
    title="MaPPO on SimPO",
    paper="p052",
    citation=MAPPO,
    equation="−log σ(β/|y_w| log π(y_w) − Δ β/|y_l| log π(y_l) − γ), Δ = s_w − s_l in [0, 1]",
    feedback={"pairs", "scores"},
    relatives="simpo where Δ = 1. β is SimPO's default, for lack of a published one.",
    pitfalls=NEAR_TIES + MAPPO_SCORES,
)
def mappo_simpo(beta: Positive = 2.0, gamma: NonNegative = 1.0, scores: Scores = "unit") -> Objective:
    """SimPO that pushes a rejected response down only as far as it is worse."""
    return Compare(maximum_a_posteriori(beta * Logp().mean(), scores), target=gamma)


@published(
    title="MaPPO on IPO",
    paper="p052",
    citation=MAPPO,
    equation="(u(y_w) − Δ u(y_l) − 1/(2τ))², Δ = s_w − s_l in [0, 1], u = log π/π_ref",
    feedback={"pairs", "scores"},
    relatives="ipo, summed over tokens, where Δ = 1. The paper calls τ β.",
    pitfalls=MAPPO_SCORES,
)
def mappo_ipo(tau: Positive = 0.1, scores: Scores = "unit") -> Objective:
    """IPO that counts the rejected response's log-ratio only as far as it is worse."""
    return Compare(maximum_a_posteriori(log_ratio().sum(), scores), link=squared, target=1 / (2 * tau))


@published(
    title="MaPPO on CPO",
    paper="p052",
    citation=MAPPO,
    equation="−log σ(β log π(y_w) − Δ β log π(y_l)) − λ log π(y_w), Δ = s_w − s_l in [0, 1]",
    feedback={"pairs", "scores"},
    relatives="The likelihood is summed over tokens. Where Δ = 1 it is contrastive preference optimization.",
    pitfalls=NEAR_TIES + MAPPO_SCORES,
)
def mappo_cpo(beta: Positive = 0.1, lam: NonNegative = 0.2, scores: Scores = "unit") -> Objective:
    """CPO that pushes a rejected response down only as far as it is worse."""
    preference = Compare(maximum_a_posteriori(beta * Logp().sum(), scores))
    return preference + lam * negative_log_likelihood("chosen", "sum")


def share_of_shorter(ratio: float) -> Quantity:
    """max(⌊ratio · min(|y_w|, |y_l|)⌋, 1), ``[example 1]``."""

    def size(shorter: Float[Tensor, "example 1"]) -> Float[Tensor, "example 1"]:
        # in double precision as the authors' Python does it: .7 · 10 is 7 there
        return (ratio * shorter.double()).floor().clamp(min=1).to(shorter.dtype)

    return shorter_length().map(size)


def pilot(reward: Quantity, ratio: float) -> Quantity:
    """The reward of a random part of the response's tokens, without a gradient."""
    return (reward * RandomTokens(share_of_shorter(ratio))).sum().detach()


@published(
    title="SGDPO: self-guided DPO",
    paper="p015",
    citation="Zhu et al., 2025, arXiv 2505.12435; code WNQzhu/SGDPO",
    equation=(
        "−½ log σ(β [u(y_w) − p_l]) − ½ log σ(β [p_w − u(y_l)]), p = sg of u on max(⌊r m⌋, 1) random tokens, "
        "m = min(|y_w|, |y_l|)"
    ),
    settings={
        "default": {"beta": 0.1, "chosen_ratio": 0.6, "rejected_ratio": 0.9, "learning_rate": 5e-7},
        "llama-3-8b": {"beta": 0.1, "chosen_ratio": 0.7, "rejected_ratio": 0.9, "learning_rate": 5e-7},
    },
    relatives=(
        "With all tokens in the pilots it has dpo's value and half of its gradient. Both ratios multiply the "
        "shorter of the two lengths. Policy and reference are read at the same drawn tokens."
    ),
    pitfalls=(
        "The pilots have no gradient: with one, a drawn token would be pulled twice. The draw is new at "
        "every step; in evaluation a pilot is its mean over all draws."
    ),
)
def sgdpo(
    beta: Positive = 0.1,
    chosen_ratio: NonZeroShare = 0.6,
    rejected_ratio: NonZeroShare = 0.9,
    smoothing: FlipRate = 0.0,
) -> Objective:
    """Each side against a random part of the other, so that both rewards move by their own strengths."""
    per_token = beta * log_ratio()
    reward = per_token.sum()
    link: Link = smoothed(smoothing) if smoothing else logistic
    up = Compare(Sides(chosen=reward, rejected=pilot(per_token, rejected_ratio)), link=link)
    down = Compare(Sides(chosen=pilot(per_token, chosen_ratio), rejected=reward), link=link)
    return Sum((0.5, up), (0.5, down))
