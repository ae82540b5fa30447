"""Scores say by how much: the policy's reward gap matched to the gap of the scores."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import ListMean
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Match, Objective
from prefero.objectives.contrasts import Comparisons, Contrast, Margins
from prefero.objectives.links import Link, bernoulli_kl, squared
from prefero.objectives.quantities import Column, Quantity, log_ratio, per_response, present
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published
from prefero.objectives.targets import score_gap

CITATION = "Sun et al., 2025, arXiv 2502.00203"
NAMES = (
    "`backward_kl` has the scores' distribution first and covers it, `forward_kl` the policy's, as in the "
    "authors' code; elsewhere the names are often the other way round. Other papers call other methods RPO."
)


@published(
    title="RPO: reward-aware preference optimization",
    paper="p142",
    citation=CITATION,
    equation=(
        "D[a ‖ t], a = β h, t = η (s_w − s_l): KL(σ(t) ‖ σ(a)) (backward), KL(σ(a) ‖ σ(t)) (forward), "
        "(a − t)²"
    ),
    feedback={"pairs", "scores"},
    relatives=(
        NAMES + " Backward is dpo for a large η, and cdpo but for a constant for scores that differ by "
        "logit(1 − ε)/η; squared is ipo times β² for scores that differ by 1/(2η), and reward distillation. "
        "A likelihood of the chosen response is added with `plus`."
    ),
    pitfalls=(
        "The scores decide, not the labels: a rejected response with the higher score wins. η s must be "
        "logits in size. Forward has next to no gradient for pairs that are far on the wrong side."
    ),
)
def rpo_reward_aware(
    beta: Positive = 0.2,
    eta: NonNegative = 1.0,
    divergence: Literal["backward_kl", "forward_kl", "squared"] = "backward_kl",
) -> Objective:
    """The implicit reward gap of a pair brought to η times the gap of its scores, not as far apart as
    possible."""
    reward = beta * log_ratio().sum()
    if divergence == "squared":
        return Compare(reward, link=squared, target=score_gap(eta, "identity"))
    return Compare(reward, link=score_kl(eta, divergence))


def score_kl(eta: float, divergence: Literal["backward_kl", "forward_kl"]) -> Link:
    """KL between the preference that a margin implies and the one that η times the score gap implies."""
    gap = score_gap(eta, "identity")

    def cost(margins: Tensor, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        target = gap(comparisons)
        return bernoulli_kl(target, margins) if divergence == "backward_kl" else bernoulli_kl(margins, target)

    return cost


class FromMean(Contrast):
    """Every response of a list against the list's mean; a response that is alone does not count."""

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        there = present(batch)
        return self.total(reward - ListMean(reward), batch), there & (there.sum(1, keepdim=True) > 1)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return per_response(quantity, batch)


@published(
    title="RPO: reward-aware preference optimization, lists",
    paper="p142",
    citation=CITATION,
    equation=(
        "mean_k ((r_k − r̄) − (t_k − t̄))² (squared); mean_{i<j} ((r_i − r_j) − (t_i − t_j))² (squared_pairs); "
        "KL(softmax t ‖ softmax r) (backward), KL(softmax r ‖ softmax t) (forward); r = β log π/π_ref, "
        "t = η s"
    ),
    feedback={"lists", "scores"},
    relatives=(
        NAMES + " With two responses the KLs are those of a pair. Forward is exo_rw; backward has the "
        "gradient of dpo_rw. squared_pairs is squared times 2K/(K − 1). On the policy's own fresh samples "
        "the squared forms have the leave-one-out REINFORCE gradient."
    ),
    equals=(
        Equal("exo_rw", at={"divergence": "forward_kl", "beta": 0.3, "eta": 2.0}, given={"beta_r": 0.5}),
    ),
    pitfalls="The two squared forms differ by a factor that depends on how many responses a list has.",
)
def rpo_reward_aware_lists(
    beta: Positive = 0.2,
    eta: NonNegative = 1.0,
    divergence: Literal["backward_kl", "forward_kl", "squared", "squared_pairs"] = "backward_kl",
) -> Objective:
    """The implicit rewards of a list matched to η times its scores."""
    reward = beta * log_ratio().sum()
    if divergence in ("backward_kl", "forward_kl"):
        direction: Literal["forward_kl", "reverse_kl"]
        # of a match, the forward direction has the scores' distribution first
        direction = "forward_kl" if divergence == "backward_kl" else "reverse_kl"
        return Match(reward, eta * Column("score"), direction)
    target = score_gap(eta, "identity")
    if divergence == "squared":
        return Compare(reward, FromMean(), squared, target=target, reduce=mean_of_means)
    return Compare(reward, FromMean(), squared, target=target, weight=pairs_per_mean, reduce=mean_of_means)


def pairs_per_mean(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
    """2K/(K − 1): the mean squared difference of all pairs over the mean squared distance from the mean."""
    count = comparisons.mask.sum(1, keepdim=True).to(comparisons.margins.dtype)
    return (2 * count / (count - 1).clamp(min=1)).expand_as(comparisons.margins)
