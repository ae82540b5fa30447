"""Each response on its own, against a boundary instead of against another response: KTO, PMPO, BCO, APO."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import BatchMean
from prefero.objectives.compare import Compare, Objective, RunningStatistic, penalty
from prefero.objectives.contrasts import Comparisons, Each, EachLabelled, Pair, PerComparison
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


def by_label(desirable: float, undesirable: float) -> PerComparison:
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
    """Accepted responses become likelier, rejected ones less so, each alone, held near the reference."""
    likelihood, divergence = Logp().sum(), Measured(forward_kl()).sum()
    accepted = Compare(-likelihood, EachLabelled(1), identity, reduce=mean_of_all)
    rejected = Compare(likelihood, EachLabelled(-1), identity, reduce=mean_of_all)
    return alpha * accepted + (1 - alpha) * rejected + beta * penalty(divergence, reduce=mean_of_all)


BCO = "Jung et al., 2024, arXiv 2404.04656"
APO = "D'Oosterlinck et al., 2024, arXiv 2408.06266"


@published(
    title="Binary classifier optimization, pairs",
    citation=BCO,
    equation="−log σ(r_w) − log σ(−r_l), r = β log π/π_ref",
    relatives="Without the paper's reward shift δ, as TRL's bco_pair; bco has it. An upper bound of dpo.",
    pitfalls="Without a shift, rewards of both sides far from 0 are all on one side of the boundary.",
)
def bco_pair(beta: Positive = 0.1) -> Objective:
    """Chosen responses classified as likelier than under the reference, rejected ones as less likely."""
    reward = beta * log_ratio().sum()
    return Compare(reward, Each("chosen")) + Compare(reward, Each("rejected", sign=-1))


class RewardShift(RunningStatistic):
    """δ, the mean over the steps of training of the mean reward of a step, where the two labels meet; of
    comparisons of single responses whose margins are ±reward by their label."""

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
    relatives=(
        "For chosen responses that are better than the model's own: else apo_down. apo_zero_unpaired takes "
        "labels. Other papers call other methods APO."
    ),
    pitfalls="Rewards far from 0 on either side have next to no gradient.",
)
def apo_zero(beta: Positive = 0.1) -> Objective:
    """Chosen responses become likelier than under the reference, rejected ones less likely, each alone."""
    reward = beta * log_ratio().sum()
    return Compare(reward, Each("chosen"), survival) + Compare(reward, Each("rejected", sign=-1), survival)


@published(
    title="APO-down: anchored preference optimization",
    citation=APO + ", eq. 8",
    equation="σ(r_w) + [1 − σ(r_w − r_l)], r = β log π/π_ref",
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
