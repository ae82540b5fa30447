"""Optimal transport: the distribution of rewards is aligned, not every pair."""

from __future__ import annotations

import torch

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Contrast, Each, Margins, Pair
from prefero.objectives.links import smoothed
from prefero.objectives.quantities import Logp, Quantity, log_ratio
from prefero.objectives.ranges import FlipRate, Positive
from prefero.objectives.registry import published

CITATION = "Melnyk et al., 2024, arXiv 2406.05882"
NOTE = (
    "The quantiles are those of the whole optimizer step here, of a micro-batch in TRL. An example is pulled "
    "by its rank in the step, so weights of pairs do not go with it."
)


class Ordered(Contrast):
    """Another contrast's margins in ascending order across the batch: its quantiles.

    The i-th row that has a comparison gets the i-th smallest margin; margins keep their gradients.
    """

    whole_step = True

    def __init__(self, of: Contrast) -> None:
        super().__init__()
        self.of = of

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        margins, mask = self.of(reward, batch)
        ascending = torch.where(mask, margins, torch.inf).sort(0).values
        place = (mask.cumsum(0) - 1).clamp(min=0)
        return torch.where(mask, ascending.gather(0, place), 0), mask


@published(
    title="AOT: alignment by optimal transport, pairs",
    citation=CITATION,
    equation=(
        "mean_i −log σ(β [q_i(log π(y_w) − log π(y_l)) − q_i(log π_ref(y_w) − log π_ref(y_l))]), "
        "q_i = i-th smallest of the step"
    ),
    feedback={"pairs"},
    relatives="aot_unpaired sorts the rewards of the two sides apart from each other. One pair alone is dpo. "
    + NOTE,
    pitfalls="With few pairs a step the quantiles are coarse: the method is as good as its step is large.",
)
def aot(beta: Positive = 0.1, smoothing: FlipRate = 0.0) -> Objective:
    """The policy's margins dominate the reference's quantile by quantile, as stochastic dominance of the
    first order asks for."""
    reference = beta * Logp("reference").sum()
    return Compare(
        beta * Logp().sum(),
        Ordered(Pair()),
        smoothed(smoothing),
        target=lambda comparisons: comparisons.gap(reference),
    )


@published(
    title="AOT: alignment by optimal transport, unpaired",
    citation=CITATION,
    equation="mean_i −log σ(β [q_i(u(y_w)) − q_i(u(y_l))]), u = log π/π_ref, q_i = i-th smallest of the step",
    feedback={"pairs"},
    relatives=(
        "It does not matter which rejected response belongs to which chosen one, so the two sides may have "
        "prompts of their own. One pair alone is dpo. " + NOTE
    ),
    pitfalls="With few pairs a step the quantiles are coarse: the method is as good as its step is large.",
)
def aot_unpaired(beta: Positive = 0.1, smoothing: FlipRate = 0.0) -> Objective:
    """The rewards of the chosen responses dominate those of the rejected ones quantile by quantile."""
    sides = Ordered(Each("chosen")) - Ordered(Each("rejected"))
    return Compare(beta * log_ratio().sum(), sides, smoothed(smoothing))
