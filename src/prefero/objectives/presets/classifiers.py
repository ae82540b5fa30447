"""Each response against a boundary of its own, instead of against another response: BCO and APO."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, RunningStatistic
from prefero.objectives.contrasts import Comparisons, Each, Pair
from prefero.objectives.links import survival
from prefero.objectives.presets.unpaired import by_label
from prefero.objectives.quantities import Column, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import published

BCO = "Jung et al., 2024, arXiv 2404.04656"
APO = "D'Oosterlinck et al., 2024, arXiv 2408.06266"


@published(
    title="Binary classifier optimization, pairs",
    citation=BCO,
    equation="−log σ(r_w) − log σ(−r_l), r = β log π/π_ref",
    feedback={"pairs"},
    relatives="Without the paper's reward shift δ, as TRL's bco_pair; bco has it. An upper bound of dpo.",
    pitfalls="Without a shift, rewards of both sides far from 0 are all on one side of the boundary.",
)
def bco_pair(beta: Positive = 0.1) -> Objective:
    """Chosen responses classified as likelier than under the reference, rejected ones as less likely."""
    reward = beta * log_ratio().sum()
    return Compare(reward, Each("chosen")) + Compare(reward, Each("rejected", sign=-1))


class RewardShift(RunningStatistic):
    """δ, the mean over the steps of training of the mean reward of a step, where the two labels meet.

    Of comparisons of single responses whose margins are ±reward by their label.
    """

    shift: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.label = Column("label")
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def observe(self, comparisons: Comparisons) -> None:
        if comparisons.mask.any():
            rewards = (comparisons.margins.detach() * comparisons.total(self.label))[comparisons.mask]
            self.steps += 1
            self.shift.lerp_(rewards.mean().to(self.shift.dtype), (1 / self.steps).item())

    def forward(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return comparisons.total(self.label) * self.shift.to(comparisons.margins.dtype)


@published(
    title="Binary classifier optimization",
    citation=BCO,
    equation="−w log σ(±(r − δ)), r = β log π/π_ref, δ = running mean of r, w = 1 or p/(1−p) if undesirable",
    feedback={"unpaired"},
    relatives=(
        "δ has no gradient and moves once an optimizer step, before use; the mean is over all responses, "
        "where the paper's is of the two labels' means. kto has another baseline and a sigmoid without a "
        "logarithm. prompts: matched weighs undesirable responses by the odds p/(1 − p) of the column "
        "`desirability`, within [low, high], so that their prompts become those of the desirable ones."
    ),
    pitfalls="δ starts at 0 and follows the rewards slowly: it is the mean over all steps so far.",
)
def bco(
    beta: Positive = 0.1,
    prompts: Literal["as_they_are", "matched"] = "as_they_are",
    low: NonNegative = 0.5,
    high: Positive = 10.0,
) -> Objective:
    """Desirable responses told from undesirable ones by a shifted reward, for labels without pairs."""
    label, desirability = Column("label"), Column("desirability")

    def odds(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        desirable = comparisons.total(label) > 0
        probability = comparisons.total(desirability)
        weight = (probability / (1 - probability)).clamp(low, high)
        return torch.where(desirable, 1.0, weight)

    return Compare(
        beta * log_ratio().sum(),
        Each(label="label"),
        target=RewardShift(),
        weight=odds if prompts == "matched" else 1.0,
        reduce=mean_of_all,
    )


@published(
    title="APO-zero: anchored preference optimization",
    citation=APO + ", eq. 7",
    equation="[1 − σ(r_w)] + σ(r_l), r = β log π/π_ref",
    feedback={"pairs"},
    relatives=(
        "For chosen responses that are better than the model's own: else apo_down. apo_zero_unpaired takes "
        "labels. Other papers call other methods APO."
    ),
    pitfalls="Rewards far from 0 on either side have next to no gradient.",
)
def apo_zero(beta: Positive = 0.1) -> Objective:
    """Chosen responses become likelier than under the reference and rejected ones less likely, each on its
    own."""
    reward = beta * log_ratio().sum()
    return Compare(reward, Each("chosen"), survival) + Compare(reward, Each("rejected", sign=-1), survival)


@published(
    title="APO-down: anchored preference optimization",
    citation=APO + ", eq. 8",
    equation="σ(r_w) + [1 − σ(r_w − r_l)], r = β log π/π_ref",
    feedback={"pairs"},
    relatives=(
        "For chosen responses that are worse than the model's own: both become less likely, the rejected one "
        "more so. For better ones, apo_zero."
    ),
    pitfalls="The chosen response's likelihood falls: that is its purpose, not a fault of the run.",
)
def apo_down(beta: Positive = 0.1) -> Objective:
    """Both responses become less likely than under the reference, the rejected one even more so."""
    reward = beta * log_ratio().sum()
    return Compare(reward, Pair(), survival) + Compare(reward, Each("chosen", sign=-1), survival)


@published(
    title="APO-zero for labels without pairs",
    citation=APO + ", eq. 7; TRL's KTO trainer",
    equation="λ_y [1 − σ(±r)], r = β log π/π_ref",
    feedback={"unpaired"},
    relatives=(
        "kto with its baseline z₀ left out: no mismatched responses have to be scored. The loss is averaged "
        "over responses; apo_zero adds the two of a pair."
    ),
    pitfalls="Rewards far from 0 on either side have next to no gradient.",
)
def apo_zero_unpaired(
    beta: Positive = 0.1, desirable: NonNegative = 1.0, undesirable: NonNegative = 1.0
) -> Objective:
    """Desirable responses become likelier than under the reference, undesirable ones less likely."""
    return Compare(
        beta * log_ratio().sum(),
        Each(label="label"),
        survival,
        weight=by_label(desirable, undesirable),
        reduce=mean_of_all,
    )
