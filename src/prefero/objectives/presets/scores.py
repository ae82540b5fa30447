"""Scores beside the labels: the policy's reward gap matched to that of the scores, pairs weighted by their
scores, and the scores of other objectives."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import ListMean
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Match, Objective, penalty
from prefero.objectives.contrasts import Comparisons, Contrast, Margins, PerComparison
from prefero.objectives.links import Link, bernoulli_kl, squared
from prefero.objectives.presets.pairs import LINKS
from prefero.objectives.quantities import Column, Logp, Map, Quantity, log_ratio, per_response, present
from prefero.objectives.ranges import NonNegative, NonZeroShare, Positive, Real
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published
from prefero.objectives.slots import score_gap, score_weight

REWARD_AWARE = "Sun et al., 2025, arXiv 2502.00203"
DIRECTIONS = (
    "`backward_kl` has the scores' distribution first and covers it, `forward_kl` the policy's, as in the "
    "authors' code; elsewhere the names are often the other way round. Other papers call other methods RPO."
)


@published(
    title="RPO: reward-aware preference optimization",
    paper="p142",
    citation=REWARD_AWARE,
    equation=(
        "D[a ‖ t], a = β h, t = η (s_w − s_l): KL(σ(t) ‖ σ(a)) (backward), KL(σ(a) ‖ σ(t)) (forward), "
        "(a − t)²"
    ),
    feedback={"pairs", "scores"},
    relatives=(
        DIRECTIONS + " Backward is dpo for a large η, and cdpo but for a constant for scores that differ by "
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
    """The implicit reward gap of a pair is brought to η times the gap of its scores, and no further."""
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
    citation=REWARD_AWARE,
    equation=(
        "mean_k ((r_k − r̄) − (t_k − t̄))² (squared); mean_{i<j} ((r_i − r_j) − (t_i − t_j))² (squared_pairs); "
        "KL(softmax t ‖ softmax r) (backward), KL(softmax r ‖ softmax t) (forward); r = β log π/π_ref, "
        "t = η s"
    ),
    feedback={"lists", "scores"},
    relatives=(
        DIRECTIONS + " With two responses the KLs are those of a pair. Forward is exo_rw; backward has the "
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


def unfitted(reward: Quantity, target: float, gamma: float) -> PerComparison:
    """(1 − σ(r_w − r_l − τ))^γ: small for pairs that are won by far, as in a focal loss."""

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (gamma * F.logsigmoid(target - comparisons.gap(reward))).exp()

    return weight


def behind_the_reference(reward: Quantity, reference: Quantity, tau_good: float) -> Quantity:
    """1 for responses scored ``tau_good`` or more and less likely than under the reference, else 0."""

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
    quality, fit = score_weight(eta), unfitted(beta * own, tau_ref, gamma)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        performance = fit(comparisons)
        return quality(comparisons) * (performance.detach() if detach_weight else performance)

    anchor = -own * behind_the_reference(own, whole(Logp("reference")), tau_good)
    return Compare(beta * whole(log_ratio()), weight=weight) + lam * penalty(anchor, "chosen")


@published(
    title="MODPO: multi-objective DPO",
    paper="p067",
    citation="Zhou et al., 2023, arXiv 2310.03708",
    equation="−log σ((1/w) [β h − (1−w) (r(y_w) − r(y_l))]), r: the other objectives' reward",
    feedback={"pairs", "scores"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-4}},
    relatives=(
        "With several other objectives the column holds their mean by their own weights: "
        "Σ_{j≠k} w_j r_j / (1 − w_k). The rewards may be implicit ones, β log π_j/π_ref. odpo's margin "
        "comes from the same objective and is added."
    ),
    pitfalls=(
        "The margin is subtracted: a pair whose chosen response the other objectives favour too must win by "
        "more. 1/w multiplies everything, β included."
    ),
    equals=(Equal("dpo", at={"share": 1.0}),),
)
def modpo(
    beta: Positive = 0.1, share: NonZeroShare = 0.5, link: Literal["logistic", "hinge"] = "logistic"
) -> Objective:
    """Pairs of one objective, and frozen rewards for the others: the optimum of their weighted sum.

    ``share`` is the weight of the objective whose pairs these are. The policy that fits them all is
    π_ref exp(Σ w_i r_i / β) / Z.
    """
    others = (1 - share) * Column("other_score")
    return Compare((beta * log_ratio().sum() - others) / share, link=LINKS[link])
