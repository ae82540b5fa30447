"""Samples of the policy: group-relative and token-level policy gradients, all pairs of a group, and doubly
robust preference optimization."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import ListMean
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, Slot, penalty
from prefero.objectives.contrasts import Comparisons, EveryPair, PerComparison
from prefero.objectives.presets.valued import value_head
from prefero.objectives.quantities import (
    AtLastToken,
    Column,
    Constant,
    Logp,
    Map,
    Measured,
    Quantity,
    log_ratio,
    present,
)
from prefero.objectives.ranges import AtLeastOne, NonNegative, OpenShare, Positive, Share
from prefero.objectives.reductions import mean_of_all, mean_of_means
from prefero.objectives.registry import published
from prefero.objectives.signals import TOKEN_STATE

Spread = Literal["sample", "population", "none"]

EXPONENT = 40.0
"""Where exponents are held: their exponential is finite in every type, and far beyond any clip."""

BEHAVIOUR = (
    "The model `behaviour` is the policy that sampled the responses; on the first step after sampling its "
    "ratio to the policy is 1."
)


class ListSpread(Quantity):
    """The standard deviation of a quantity over each example's responses, ``[example 1]``; 0 for one."""

    def __init__(self, of: Quantity, spread: Literal["sample", "population"]) -> None:
        super().__init__()
        self.of, self.squares, self.unbiased = of, ListMean((of - ListMean(of)).map(torch.square)), spread

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        count = present(batch).sum(1, keepdim=True)
        factor = count / (count - 1).clamp(min=1) if self.unbiased == "sample" else 1.0
        return (self.squares(batch) * factor).sqrt()


def group_advantage(spread: Spread = "sample", epsilon: float = 1e-4) -> Quantity:
    """The score minus its group's mean, over the group's standard deviation of kind ``spread``."""
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
    """e^d − d − 1, d = log π_ref − log π, per token: an estimate of KL(π ‖ π_ref), never negative."""
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


def correction(won: float, address: str, clip: float, weight: Slot = 0.5) -> Objective:
    """−sg(clip(π/π_ref) (z − ĝ)) log π(y) of the response at an address, for which ĝ was off."""
    bound = math.log(clip)
    trust = log_ratio().sum().map(lambda u: u.clamp(-bound, bound).exp()).detach()
    surprise = won - Column("win_rate")
    return penalty(-(trust * surprise * Logp().sum()), address, weight=weight)


def drawn_first(low: float, high: float) -> PerComparison:
    """1 for the examples whose own noise lies between, 0 for the others."""

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        noise = comparisons.batch.columns["pair_noise"]
        return ((low <= noise) & (noise < high))[:, None].to(comparisons.margins.dtype)

    return weight


@published(
    title="DRPO: doubly robust preference optimization",
    paper="p054",
    citation="Xu et al., 2025, arXiv 2506.01183",
    equation=(
        "½ Σ_{a ∈ {y_w, y_l}} −sg(clip(π(a)/π_ref(a), 1/c, c) (z_a − ĝ_a)) log π(a) "
        "− sg(ĝ(y*) − b) log π(y*) + β Σ_t (e^{d_t} − d_t − 1), d = log π_ref/π on y* ~ π"
    ),
    feedback={"pairs", "samples"},
    settings={"default": {"beta": 0.04, "clip": 2.5, "learning_rate": 5e-7}},
    relatives=(
        "win_rate holds ĝ: of a response of the pair against the other one; of `sample`, drawn from the "
        "policy of this step, the mean against both. The released code reads the first response of shuffled "
        "pairs alone (halves: first; which is drawn here, for every pair in every epoch), and one of its "
        "branches subtracts b = ½ from ĝ(y*), which lowers the variance (baseline). Another method called "
        "DRPO ranks lists."
    ),
    pitfalls="`sample` must come from the current policy, at the temperature of the scores.",
)
def drpo(
    beta: NonNegative = 0.04,
    clip: AtLeastOne = 2.5,
    halves: Literal["both", "first"] = "both",
    baseline: Share = 0.0,
) -> Objective:
    """Raises the policy's samples by their predicted win rate, and corrects the prediction with the labels of
    the pairs: right if either the preference model or the reference is.

    The ratio is that of the whole response, clipped before the exponential; neither it nor ĝ has a gradient.
    """
    if halves == "both":
        labelled = correction(1.0, "chosen", clip) + correction(0.0, "rejected", clip)
    else:
        won, lost = drawn_first(0.0, 0.5), drawn_first(0.5, 1.0)
        labelled = correction(1.0, "chosen", clip, won) + correction(0.0, "rejected", clip, lost)
    direct = penalty(-((Column("win_rate") - baseline) * Logp().sum()), "sample")
    return labelled + direct + beta * penalty(k3().sum(), "sample")


LARGEST_SCORE = 10.0
"""Scores of whole responses are held within ± this."""


class GeneralisedAdvantage(Quantity):
    """Σ_k (γλ)^k δ_{t+k} with δ_t = r_t + γ V_{t+1} − V_t over the scored tokens; V is 0 behind the last.

    Reward and value are numbers per token. Schulman et al., 2016, arXiv 1506.02438, eq. 16.
    """

    def __init__(self, reward: Quantity, value: Quantity, gamma: float, decay: float) -> None:
        super().__init__()
        self.reward, self.value, self.gamma, self.decay = reward, value, gamma, decay

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        reward, value = (
            torch.broadcast_to(quantity(batch), batch.mask.shape) for quantity in (self.reward, self.value)
        )
        advantage = next_value = batch.lengths.new_zeros(batch.mask.shape[:-1])
        advantages = []
        for token in reversed(range(batch.mask.shape[-1])):
            here = batch.mask[..., token]
            surprise = reward[..., token] + self.gamma * next_value - value[..., token]
            advantage = torch.where(here, surprise + self.gamma * self.decay * advantage, advantage)
            next_value = torch.where(here, value[..., token], next_value)
            advantages.append(torch.where(here, advantage, 0))
        return torch.stack(advantages[::-1], -1)


def token_reward(beta1: float, clip: float, beta2: float, beta3: float) -> Quantity:
    """RTO's reward of each token; ``clip`` = 0 does not clip. A part of coefficient 0 reads nothing."""
    reward: Quantity = -beta2 * log_ratio("behaviour", "reference")
    if beta1:
        dense = beta1 * log_ratio("guide", "reference")
        reward = reward + (dense.map(lambda values: values.clamp(-clip, clip)) if clip else dense)
    if beta3:
        score = Column("score").map(lambda values: values.clamp(-LARGEST_SCORE, LARGEST_SCORE))
        reward = reward + AtLastToken(beta3 * score)
    return reward


@published(
    title="RTO: reinforced token optimization",
    paper="p156",
    citation="Zhong et al., 2024, arXiv 2404.18922",
    equation=(
        "−mean_t min(ρ_t A_t, clip(ρ_t, 1 ± ε) A_t) + ½ mean_t (V_t − sg(A_t + V_t))², A: advantages of "
        "r_t = clip(β₁ log π_guide/π_ref, ± c) − β₂ log π_behaviour/π_ref + 1[t last] β₃ score"
    ),
    feedback={"samples", "scores"},
    settings={"default": {"beta1": 0.05, "clip": 0.05, "beta2": 0.01, "beta3": 1.0}},
    relatives=(
        "PPO whose reward is dense: the model `guide` is a policy trained by DPO from the reference, "
        "`behaviour` the policy that sampled the responses, the column score that of a reward model "
        "(normalised, held within ± 10). β₁ = 0 is PPO with a terminal reward and needs no guide, β₃ = 0 "
        "needs no reward model. Advantages are not whitened. The value's loss is not clipped: the critic is a"
        " linear head on the policy's states, detached, and has no values of the time of sampling."
    ),
    pitfalls=(
        "The clip comes behind β₁ and before the other terms. β₁ has to stay small, as the dense reward only "
        "shapes: too large, and the policy copies the guide."
    ),
)
def rto(
    beta1: NonNegative = 0.05,
    clip: NonNegative = 0.05,
    beta2: NonNegative = 0.01,
    beta3: NonNegative = 1.0,
    gamma: Share = 1.0,
    gae_lambda: Share = 0.95,
    ratio_clip: OpenShare = 0.2,
    critic: bool = True,
) -> Objective:
    """Every token is rewarded by what an aligned policy thinks of it, and a policy gradient follows.

    Without ``critic`` the value is 0 everywhere, and an advantage is what is still to come.
    """
    value: Quantity = value_head(Measured(TOKEN_STATE), detached=True) if critic else Constant(0.0)
    reward = token_reward(beta1, clip, beta2, beta3)
    advantage = GeneralisedAdvantage(reward, value, gamma, gae_lambda).detach()
    policy = penalty(-clipped_surrogate(advantage, ratio_clip).mean(), reduce=mean_of_all)
    if not critic:
        return policy
    error = (value - (advantage + value).detach()).map(torch.square)
    return policy + 0.5 * penalty(error.mean(), reduce=mean_of_all)
