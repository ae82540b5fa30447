"""Unpaired feedback: each response is desirable or not, on its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons, Each
from prefero.objectives.links import survival
from prefero.objectives.quantities import BatchMean, Column, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import published


@published(
    title="Kahneman–Tversky optimization",
    citation="Ethayarajh et al., 2024, arXiv 2402.01306",
    equation=(
        "λ_y [1 − σ(±(β log π(y)/π_ref(y) − z₀))], z₀ = max(0, mean of β log π/π_ref over mismatched "
        "responses)"
    ),
    feedback={"unpaired"},
    relatives=(
        "z₀ has no gradient and is estimated on the same prompts with other examples' responses, over the "
        "whole optimizer step. λ_D n_D and λ_U n_U should be within a factor of 4/3 of each other."
    ),
)
def kto(beta: Positive = 0.1, desirable: NonNegative = 1.0, undesirable: NonNegative = 1.0) -> Objective:
    """Prospect theory's value of a response against the policy's own drift, for labels without pairs.

    The loss is averaged over responses, as in TRL and the authors' code.
    """
    reward = beta * log_ratio().sum()
    baseline = BatchMean(reward).at("mismatched").map(lambda drift: drift.clamp(min=0)).detach()
    label = Column("label")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return torch.where(comparisons.total(label) > 0, desirable, undesirable)

    return Compare(reward - baseline, Each(label="label"), survival, weight=weight, reduce=mean_of_all)
