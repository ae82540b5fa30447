"""Unpaired feedback: each response is desirable or not, on its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import BatchMean
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons, Each, EachLabelled
from prefero.objectives.links import identity, survival
from prefero.objectives.quantities import Column, Logp, Measured, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Share
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import published
from prefero.objectives.signals import forward_kl


@published(
    title="Kahneman–Tversky optimization",
    citation="Ethayarajh et al., 2024, arXiv 2402.01306, eq. 8",
    equation=(
        "λ_y [1 − σ(±(β log π(y)/π_ref(y) − z₀))], z₀ = max(0, mean of β log π/π_ref over mismatched "
        "responses)"
    ),
    feedback={"unpaired"},
    settings={"default": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "z₀ has no gradient and is estimated on the same prompts with other examples' responses, over the "
        "whole optimizer step. pmpo weighs likelihoods instead: no sigmoid and no log-ratio."
    ),
    pitfalls=(
        "λ_D n_D and λ_U n_U should be within a factor of 4/3 of each other. Steps of few examples make z₀ "
        "noisy, and z₀ above every reward flattens all gradients."
    ),
)
def kto(beta: Positive = 0.1, desirable: NonNegative = 1.0, undesirable: NonNegative = 1.0) -> Objective:
    """Prospect theory's value of a response against the policy's own drift, for labels without pairs.

    The loss is averaged over responses, as in TRL and the authors' code.
    """
    reward = beta * log_ratio().sum()
    baseline = BatchMean(reward).at("mismatched").map(lambda drift: drift.clamp(min=0)).detach()
    weight = by_label(desirable, undesirable)
    return Compare(reward - baseline, Each(label="label"), survival, weight=weight, reduce=mean_of_all)


def by_label(
    desirable: float, undesirable: float
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """The weight of a response that the column ``label`` calls desirable, and that of another."""
    label = Column("label")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return torch.where(comparisons.total(label) > 0, desirable, undesirable)

    return weight


@published(
    title="PMPO: preference optimization as probabilistic inference",
    paper="p033",
    citation="Abdolmaleki et al., 2024, arXiv 2410.04166",
    equation=(
        "−α mean_accepted log π(y) + (1−α) mean_rejected log π(y) + β mean Σ_t KL(π_ref ‖ π) at token t"
    ),
    feedback={"unpaired"},
    relatives=(
        "No sigmoid: the reference enters through the divergence only. Means are taken within each label, so "
        "their numbers need not match. MPO with weights exp(r/η) is another algorithm. Rejected examples "
        "alone (α = 0) need a larger β, of 2 or more."
    ),
    pitfalls=(
        "The rejected term is unbounded below: with a β too small for it the policy collapses. The "
        "divergence needs the reference's whole next-token distributions."
    ),
)
def pmpo(alpha: Share = 0.5, beta: NonNegative = 0.5) -> Objective:
    """Accepted responses become likelier, rejected ones less so, each on their own, held near the
    reference."""
    likelihood, divergence = Logp().sum(), Measured(forward_kl()).sum()
    accepted = Compare(-likelihood, EachLabelled(1), identity, reduce=mean_of_all)
    rejected = Compare(likelihood, EachLabelled(-1), identity, reduce=mean_of_all)
    return alpha * accepted + (1 - alpha) * rejected + beta * penalty(divergence, reduce=mean_of_all)
