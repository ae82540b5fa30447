"""Groups of samples of one prompt: group-relative policy gradients, and DPO over all pairs."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import ListMean
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import EveryPair
from prefero.objectives.quantities import Column, Logp, Map, Quantity, log_ratio, present
from prefero.objectives.ranges import NonNegative, OpenShare, Positive
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import published

Spread = Literal["sample", "population", "none"]

EXPONENT = 40.0
"""Where exponents are held: their exponential is finite in every type, and far beyond any clip."""

BEHAVIOUR = (
    "The model `behaviour` is the policy that sampled the responses; on the first step after sampling its "
    "ratio to the policy is 1."
)


class ListSpread(Quantity):
    """The standard deviation of a quantity over the responses that each example has, ``[example 1]``; 0 for
    one alone."""

    def __init__(self, of: Quantity, spread: Literal["sample", "population"]) -> None:
        super().__init__()
        self.of, self.squares, self.unbiased = of, ListMean((of - ListMean(of)).map(torch.square)), spread

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        count = present(batch).sum(1, keepdim=True)
        factor = count / (count - 1).clamp(min=1) if self.unbiased == "sample" else 1.0
        return (self.squares(batch) * factor).sqrt()


def group_advantage(spread: Spread = "sample", epsilon: float = 1e-4) -> Quantity:
    """The score less the mean of its group, divided by the group's standard deviation (its sample's or its
    population's) or by nothing. 0 for a group of equal scores."""
    score = Column("score")
    centred = score - ListMean(score)
    return centred if spread == "none" else centred / (ListSpread(score, spread) + epsilon)


def clipped_surrogate(advantage: Quantity, clip: float) -> Quantity:
    """min(ρ A, clip(ρ, 1 ± ε) A) of every token, ρ = π/π_behaviour: what a policy gradient raises. The
    advantage, a number per token, has no gradient."""
    ratio = log_ratio("policy", "behaviour").map(lambda d: d.clamp(-EXPONENT, EXPONENT).exp())

    def surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
        return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)

    return Map(surrogate, ratio, advantage.detach())


def k3(model: str = "policy", against: str = "reference") -> Quantity:
    """e^d − d − 1 with d = log π_ref − log π, per token: an estimate of KL(π ‖ π_ref) that is never
    negative."""
    difference = (Logp(against) - Logp(model)).map(lambda d: d.clamp(max=EXPONENT))
    return difference.map(torch.expm1) - difference


@published(
    title="Multi-objective GRPO",
    paper="p132",
    citation="Li et al., 2025, arXiv 2503.21819",
    equation=(
        "−1/G Σ_i 1/|y_i| Σ_t [min(ρ_t A_i, clip(ρ_t, 1 ± ε) A_i) − β_KL k₃], "
        "A = (R − mean R)/(std R + ε), R = Σ_k w_k r_k"
    ),
    feedback={"lists", "scores", "samples"},
    relatives=(
        "The score is the weighted sum of the aspects (prefero.feedback.aspects); advantage: given reads the "
        "column `advantage` instead, for advantages that were made per aspect and then weighted. Which "
        "standard deviation is meant is not stated: the sample's, as in common trainers. group_robust is "
        "called GRPO too. " + BEHAVIOUR
    ),
    pitfalls="A weighted sum hides conflicts between the aspects: look at each of them.",
)
def mo_grpo(
    clip: OpenShare = 0.2,
    kl: NonNegative = 0.04,
    spread: Spread = "sample",
    epsilon: Positive = 1e-4,
    advantage: Literal["group", "given"] = "group",
) -> Objective:
    """Group-relative policy optimization on a score made of several: better than the group, more likely."""
    lead = Column("advantage") if advantage == "given" else group_advantage(spread, epsilon)
    return penalty((kl * k3() - clipped_surrogate(lead.per_token(), clip)).mean(), reduce=mean_of_means)


@published(
    title="Group DPO",
    paper="p112",
    citation="Lanchantin et al., 2025, arXiv 2506.21495",
    equation="1/(|Y_c| |Y_r|) Σ_{c ∈ Y_c} Σ_{r ∈ Y_r} −log σ(β [u(c) − u(r)])",
    feedback={"lists", "scores"},
    relatives=(
        "Scores are 1 for correct and 0 for incorrect responses; graded scores meet in every pair of unequal "
        "ones. One of each is dpo. Prompts with one kind alone are left out of the mean. The reference is "
        "synchronised with the generator where the loop does so."
    ),
)
def group_dpo(beta: Positive = 0.1) -> Objective:
    """Every correct response of a prompt against every incorrect one."""
    return Compare(beta * log_ratio().sum(), EveryPair("score"), reduce=mean_of_means)


@published(
    title="Group DPO plus GRPO",
    paper="p112",
    citation="Lanchantin et al., 2025, arXiv 2506.21495",
    equation="group DPO − α Σ_i Σ_t min(ρ_t A_i, clip(ρ_t) A_i), A = R − mean R",
    feedback={"lists", "scores", "samples"},
    relatives=(
        "The policy-gradient term is a sum over responses and tokens, its advantages are not divided by the "
        "standard deviation, and there is no KL: not mo_grpo. α has no published default. Prompts of one "
        "kind alone have no gradient in either term. " + BEHAVIOUR
    ),
)
def group_dpo_grpo(beta: Positive = 0.1, alpha: NonNegative = 0.1, clip: OpenShare = 0.2) -> Objective:
    """Pairs of a group and its policy gradient in one loss."""
    policy_gradient = penalty(-clipped_surrogate(group_advantage("none").per_token(), clip).sum())
    return group_dpo(beta) + alpha * policy_gradient
