"""Pairs count by what their scores say, and by how well the policy fits them already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Column, Logp, Map, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.registry import published
from prefero.objectives.weights import score_gap

Weight = Callable[[Comparisons], Float[Tensor, "row comparison"]]


def unfitted(reward: Quantity, target: float, gamma: float) -> Weight:
    """(1 − σ(r_w − r_l − τ))^γ: small for pairs that are won by far, as in a focal loss."""

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (gamma * F.logsigmoid(target - comparisons.gap(reward))).exp()

    return weight


def behind_the_reference(reward: Quantity, reference: Quantity, tau_good: float) -> Quantity:
    """1 for responses that are scored at least ``tau_good`` and less likely than under the reference, else
    0; no gradient."""

    def behind(policy: Tensor, reference: Tensor, score: Tensor) -> Tensor:
        return ((reference > policy) & (score >= tau_good)).to(policy.dtype)

    return Map(behind, reward, reference, Column("score"))


@published(
    title="Omni-DPO (Uni-DPO)",
    paper="p029",
    citation="Peng et al., 2025, arXiv 2506.10054; code pspdada/Uni-DPO",
    equation=(
        "−σ(η (s_w − s_l)) [1 − σ(β (m_w − m_l) − τ_ref)]^γ log σ(β (ū_w − ū_l)) "
        "− λ 1[m_ref,w > m_w] 1[s_w ≥ τ_good] m_w; m = 1/|y| log π(y), ū = 1/|y| log π/π_ref"
    ),
    feedback={"pairs", "scores"},
    settings={
        "llama-3-8b": {"beta": 2.0, "learning_rate": 1e-6},
        "gemma-2-9b-it": {"beta": 10.0},
        "math": {"tau_ref": 2.0, "lam": 0.2, "tau_good": 8.0},
    },
    relatives=(
        "The weight reads the policy's own margin, the loss the one against the reference. The authors' code "
        "differentiates the weight of fit, and so does this (detach_weight stops it); the indicators have no "
        "gradient. With `tokens: sum` all four log-probabilities are sums, and β must be of DPO's size. "
        "η = γ = λ = 0 is half of dpo on means, as σ(0) = ½."
    ),
    pitfalls="η and τ_good belong to the scale of the scores, which the defaults take to be about 0 to 5.",
    aliases=("uni_dpo",),
)
def omni_dpo(
    beta: Positive = 2.0,
    eta: NonNegative = 0.7,
    tau_ref: Real = 0.8,
    gamma: NonNegative = 3.0,
    lam: NonNegative = 1e-3,
    tau_good: Real = 3.2,
    tokens: Literal["mean", "sum"] = "mean",
    detach_weight: bool = False,
) -> Objective:
    """DPO on the pairs that are good by their scores and not fitted yet, plus the likelihood of good chosen
    responses that the policy has made less likely."""

    def whole(per_token: Quantity) -> Quantity:
        return per_token.mean() if tokens == "mean" else per_token.sum()

    own = whole(Logp())
    quality, fit = score_gap(eta), unfitted(beta * own, tau_ref, gamma)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        performance = fit(comparisons)
        return quality(comparisons) * (performance.detach() if detach_weight else performance)

    anchor = -own * behind_the_reference(own, whole(Logp("reference")), tau_good)
    return Compare(beta * whole(log_ratio()), weight=weight) + lam * penalty(anchor, "chosen")
