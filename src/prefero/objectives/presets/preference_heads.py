"""Heads that learn a preference beside the policy's own: a reward, an embedding, a degree."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Each
from prefero.objectives.heads import Head, Projection, VectorHead
from prefero.objectives.links import smoothed
from prefero.objectives.presets.games import regressed_on
from prefero.objectives.quantities import Column, Measured, Quantity, log_ratio, present
from prefero.objectives.ranges import Count, FlipRate, NonNegative, Positive, Range
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import PROMPT_STATE, STATE

Pool = Literal["identity", "tanh", "swiglu"]


class Gated(nn.Module):
    """silu(W h) ⊙ V h, as wide as h."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value = Projection(None, bias=None), Projection(None, bias=None)

    def forward(self, states: Float[Tensor, "*where hidden"]) -> Float[Tensor, "*where hidden"]:
        return F.silu(self.gate(states)) * self.value(states)


def reward_head(pool: Pool, state: Quantity) -> Head:
    """r = w · pool(h), without a bias."""
    pools: dict[str, list[nn.Module]] = {
        "identity": [],
        "tanh": [Projection(None), nn.Tanh()],
        "swiglu": [Gated()],
    }
    return Head(nn.Sequential(*pools[pool], Projection(bias=None)), state)


def preference_by(reward: Quantity, smoothing: float, loss: Literal["separable", "contrastive"]) -> Objective:
    """The head's part of :func:`dph`, with any quantity as the reward."""
    link = smoothed(smoothing)
    if loss == "contrastive":
        return Compare(reward, link=link)
    return Compare(reward, Each("chosen"), link) + Compare(reward, Each("rejected", sign=-1.0), link)


@published(
    title="Direct preference heads",
    paper="p078",
    citation=(
        "Hadji-Kyriacou and Arandjelović, 2024, arXiv 2405.20053; code Avelina9X/direct-preference-heads"
    ),
    equation=(
        "λ_h [BCE(r_w, 1−ε) + BCE(r_l, ε)] + λ_p cDPO(β, ε); contrastive: cross-entropy of σ(r_w − r_l); "
        "r = w · pool(state at the last token)"
    ),
    settings={"default": {"smoothing": 0.1, "beta": 0.1, "head_weight": 1.0, "policy_weight": 1.0}},
    relatives=(
        "The head judges at inference: sample several responses and keep the one of highest reward. Its own "
        "optimum is finite, r_w − r_l = log((1−ε)/ε), so it needs no reference; cDPO keeps the model near "
        "its start. The two cross-entropies are added, not averaged. The authors' dropout in the pool is "
        "left out; their weight decay is objective_weight_decay: 0.1."
    ),
    equals=(Equal("cdpo", at={"head_weight": 0.0}),),
    pitfalls=(
        "The reward is read at the last token, so responses have to be scored with the end token that they "
        "were trained with. The head's gradient shapes the model unless detach_head is set."
    ),
)
def dph(
    loss: Literal["separable", "contrastive"] = "separable",
    pool: Pool = "identity",
    smoothing: FlipRate = 0.1,
    beta: Positive = 0.1,
    head_weight: NonNegative = 1.0,
    policy_weight: NonNegative = 1.0,
    detach_head: bool = False,
) -> Objective:
    """A scalar head that learns which response is preferred, beside conservative DPO of the policy.

    With ``detach_head`` the head reads the policy's states without shaping them; with ``policy_weight`` 0 too
    the policy stays as it is.
    """
    state = Measured(STATE)
    reward = reward_head(pool, state.detach() if detach_head else state)
    objective = head_weight * preference_by(reward, smoothing, loss)
    if policy_weight:
        own = Compare(beta * log_ratio().sum(), link=smoothed(smoothing))
        objective = objective + policy_weight * own
    return objective


def preference_scores(
    embeddings: Float[Tensor, "*example response two_k"], scales: Float[Tensor, "*example k"]
) -> Float[Tensor, "*example response response"]:
    """s(y_i ≻ y_j) = Σ_l λ_l (v_i[2l] v_j[2l+1] − v_i[2l+1] v_j[2l]) for every two responses: log-odds, up to
    a temperature, skew-symmetric, cycles included. Zhang et al., 2024, arXiv 2410.02197."""
    even, odd = embeddings[..., 0::2], embeddings[..., 1::2]
    half = (even * scales[..., None, :]) @ odd.transpose(-1, -2)
    return half - half.transpose(-1, -2)


class PairScore(Quantity):
    """±½ s(y_w ≻ y_l) for the chosen and rejected response, 0 for others: their margin is s(y_w ≻ y_l)."""

    def __init__(self, embedding: Quantity, scales: Quantity) -> None:
        super().__init__()
        self.embedding, self.scales = embedding, scales

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        chosen, rejected = batch.roles.index("chosen"), batch.roles.index("rejected")
        embeddings = self.embedding(batch)[:, [chosen, rejected]]
        score = preference_scores(embeddings, self.scales(batch)[:, chosen])[:, 0, 1]
        result = score.new_zeros(batch.mask.shape[:2])
        sides = torch.stack([score, -score], 1) / 2
        return result.index_copy(1, torch.tensor([chosen, rejected], device=score.device), sides)


class UnitLength(nn.Module):
    """The vector's direction."""

    def forward(self, vectors: Float[Tensor, "*where axis"]) -> Float[Tensor, "*where axis"]:
        return F.normalize(vectors, dim=-1)


class PromptScales(nn.Module):
    """λ(x) = k softmax(W h/√width): positive, with mean 1."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks, self.gate = blocks, Projection(blocks, bias=None)

    def forward(self, states: Float[Tensor, "*where hidden"]) -> Float[Tensor, "*where k"]:
        return self.blocks * (self.gate(states) / math.sqrt(states.shape[-1])).softmax(-1)


class Ones(Quantity):
    """λ = 1 for every prompt."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response k"]:
        return batch.lengths.new_ones((*batch.mask.shape[:2], self.blocks))


def general_preference(embedding: Quantity, scales: Quantity, tau: float) -> Objective:
    """:func:`gpm` with any embeddings ``[example response 2k]`` and scales ``[example response k]``."""
    return Compare(PairScore(embedding, scales) / tau)


@published(
    title="General preference model",
    paper="p085",
    citation="Zhang et al., 2024, arXiv 2410.02197; code general-preference/general-preference-model",
    equation="−log σ(s(y_w ≻ y_l)/τ), s = Σ_l λ_l(x) (v_w[2l] v_l[2l+1] − v_w[2l+1] v_l[2l])",
    settings={"default": {"tau": 0.1}},
    relatives=(
        "A preference model, no policy: means of its scores are the column advantage of gpo. Skew-symmetric, "
        "so it fits cycles, which no scalar reward can; with v = (r, c), not normalised, it is Bradley and "
        "Terry's model of r. The released model adds 0.01 of the chosen response's likelihood: "
        "`plus: {nll: 0.01}`."
    ),
    aliases=("gpm_score",),
    pitfalls=(
        "The state is that of the last token. With unit vectors |s| is at most the largest λ, so τ decides "
        "how sure the model can be. k is the number of blocks; one is enough for a cycle of three."
    ),
)
def gpm(tau: Positive = 0.1, k: Count = 3, normalise: bool = True, prompt_scales: bool = True) -> Objective:
    """A preference model of embeddings, whose score of two responses may form cycles.

    An embedding of 2k numbers of each response's last state, of unit length if ``normalise``; and scales λ of
    the prompt's last state, or 1 without ``prompt_scales``. k is a suggestion.
    """
    ends: list[nn.Module] = [UnitLength()] if normalise else []
    embedding = VectorHead(nn.Sequential(Projection(2 * k, bias=None), *ends), Measured(STATE))
    scales = VectorHead(PromptScales(k), Measured(PROMPT_STATE)) if prompt_scales else Ones(k)
    return general_preference(embedding, scales, tau)


@published(
    title="General preference optimization",
    paper="p085",
    citation="Zhang et al., 2024, arXiv 2410.02197, eq. 5.2 and 5.3",
    equation="½ Σ_{y ∈ {y_w, y_l}} (log π(y)/π_t(y) − s̄(y)/β)², s̄: mean score against the group",
    feedback={"pairs", "samples"},
    settings={"default": {"beta": 0.001, "learning_rate": 5e-7}},
    relatives=(
        "sppo with scores (log-odds, centred at 0) in place of win rates less ½. The column advantage is s̄ "
        "of each response against the K samples of its group, itself included: above 0 for the best of them, "
        "below for the worst. The target is s, where the released table holds s − sᵀ = 2s. Other papers call "
        "a family of links, or a method for groups of people, GPO. The reference is the policy at the start "
        "of the round, which the loop has to set."
    ),
    pitfalls=(
        "Targets are hundreds of nats at β = 0.001: the authors use RMSprop and a tiny learning rate. A "
        "judge's scores of, say, 1 to 10 are no s̄: the model would be driven up by thousands of nats on both "
        "sides. Subtract the mean of the group, and bring them to log-odds."
    ),
)
def gpo(beta: Positive = 0.001) -> Objective:
    """The log-ratio of each response regressed on its mean preference score over the sampling policy's."""
    return regressed_on(Column("advantage") / beta)


VARIANTS = ("chosen_degraded", "rejected_degraded")
"""The roles of the responses with part of their content removed."""


class DegreeLoss(Quantity):
    """−log of the share that ``logits`` give to the degree in the column ``degree``."""

    def __init__(self, logits: Quantity) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        logits = self.logits(batch)
        degree = torch.where(present(batch), batch.columns["degree"], 0)
        count = logits.shape[-1]
        if degree.numel() and not 0 <= int(degree.min()) <= int(degree.max()) < count:
            raise PreferoError(
                f"the data has degrees from {int(degree.min())} to {int(degree.max())}, but "
                f"spo_self_supervised was given degrees={count}, numbered from 0"
            )
        return -logits.log_softmax(-1).gather(-1, degree[..., None])[..., 0]


def with_degrees(objective: Objective, logits: tuple[Quantity, Quantity], gamma: float) -> Objective:
    """:func:`spo_self_supervised` on any objective, with any logits for the degrees of the variants."""
    for variant, own in zip(VARIANTS, logits, strict=True):
        objective = objective + 0.5 * gamma * penalty(DegreeLoss(own), variant)
    return objective


@published(
    title="Self-supervised preference optimization",
    paper="p115",
    citation="Li et al., 2024, arXiv 2409.17791",
    equation="DPO + γ/2 Σ_{ỹ ∈ {ỹ_w, ỹ_l}} CE(W h(x, ỹ) + b, degree(ỹ))",
    relatives=(
        "ỹ is a response with part of its key content removed, in the roles chosen_degraded and "
        "rejected_degraded; the column degree says how much, from 0 (nothing) to degrees − 1; "
        "prefero.feedback.degrading makes them. Variants take no part in the preference. No code is "
        "published: classes, pooling at the last token and γ are readings of the paper. Other papers call "
        "other methods SPO."
    ),
    equals=(Equal("dpo", at={"gamma": 0.0}),),
    pitfalls="The head is of use in training alone. A degree that the text does not show teaches nothing.",
)
def spo_self_supervised(
    beta: Positive = 0.1,
    gamma: NonNegative = 0.5,
    degrees: Annotated[int, Range(2, 1000, low_included=True, high_included=True)] = 3,
    heads: Literal["shared", "separate"] = "shared",
) -> Objective:
    """DPO with a head that has to tell how much content was taken out of a response.

    One head for both sides, or one for each where the paper leaves it open.
    """
    first = VectorHead(Projection(degrees), Measured(STATE))
    second = first if heads == "shared" else VectorHead(Projection(degrees), Measured(STATE))
    return with_degrees(Compare(beta * log_ratio().sum()), (first, second), gamma)
