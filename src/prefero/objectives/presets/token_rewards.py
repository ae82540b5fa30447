"""Dense rewards: an aligned policy scores every token, and a clipped policy gradient follows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Objective, penalty
from prefero.objectives.heads import State
from prefero.objectives.presets.group_relative import clipped_surrogate
from prefero.objectives.presets.valued import value_head
from prefero.objectives.quantities import AtLastToken, Column, Constant, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, OpenShare, Share
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import published
from prefero.objectives.signals import TOKEN_STATE

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
    """What RTO rewards each token with; ``clip`` = 0 does not clip. A part whose coefficient is 0 reads
    nothing."""
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
    value: Quantity = value_head(State(TOKEN_STATE), detached=True) if critic else Constant(0.0)
    reward = token_reward(beta1, clip, beta2, beta3)
    advantage = GeneralisedAdvantage(reward, value, gamma, gae_lambda).detach()
    policy = penalty(-clipped_surrogate(advantage, ratio_clip).mean(), reduce=mean_of_all)
    if not critic:
        return policy
    error = (value - (advantage + value).detach()).map(torch.square)
    return policy + 0.5 * penalty(error.mean(), reduce=mean_of_all)
