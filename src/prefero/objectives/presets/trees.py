"""Preference trees: branches of a solution, scored, compared as a list and step by step."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prefero.objectives.among import Rank
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import EveryPair
from prefero.objectives.quantities import Column, Constant, Quantity, log_ratio, per_response, present
from prefero.objectives.ranges import Positive
from prefero.objectives.registry import published
from prefero.objectives.signals import TOKEN_STATE
from prefero.objectives.steps import step_index, step_starts
from prefero.objectives.weights import discounted_gain

Likeness = Literal["dissimilarity", "similarity"]


@published(
    title="Tree preference optimization",
    paper="p071",
    citation="Liao et al., 2024, arXiv 2410.12854",
    equation=(
        "−Σ_{v_i>v_j} λ_ij log σ(r_i − r_j), r = β Σ_k ω_k S(step k), "
        "λ_ij = |2^{v_i} − 2^{v_j}| |1/ln(1+τ_i) − 1/ln(1+τ_j)|"
    ),
    feedback={"lists", "scores", "steps"},
    settings={"default": {"beta": 0.5, "learning_rate": 5e-7}},
    relatives=(
        "τ is a response's place in the order of the current rewards (1 the best; of equal ones, the better "
        "scored is first), without a gradient: LiPO's λ. rankdpo ranks by the scores. ω is 1 − cos of a "
        "step's mean state to the same step of the best response (dissimilarity: what the paper aims at), "
        "1 + cos (similarity: the authors' code), the column token_weight (given), or 1 (none). The step "
        "weights are a reading of the paper; its code takes a weighted mean and leaves λ out. tpo_triple "
        "shares only the letters."
    ),
    pitfalls=(
        "Scores must lie in [0, 1]: they stand in an exponent. The authors' code wraps the ranking loss into "
        "−log σ(β L), which increases it, and averages misaligned log-probabilities; neither is done here."
    ),
)
def tpo_tree(
    beta: Positive = 0.5,
    step_weight: Literal["dissimilarity", "similarity", "given", "none"] = "dissimilarity",
) -> Objective:
    """Every branch against every worse one, by how much their scores and their places differ; steps that tell
    the branches apart count more.

    The best response's own steps have the mean weight of the others' steps there, so that two responses are
    compared with one ω for both. Steps beyond those of the shortest response belong to its last one.
    """
    weight: Quantity = Constant(1.0)
    if step_weight == "given":
        weight = Column("token_weight")
    elif step_weight != "none":
        weight = BranchWeight(Column("score"), step_weight)
    reward = beta * (weight * log_ratio()).sum()
    score = Column("score")
    weight_of_pair = discounted_gain(score, Rank(reward, ties=score))
    return Compare(reward, EveryPair("score"), weight=weight_of_pair)


def similarity(
    first: Float[Tensor, "*rest hidden"], second: Float[Tensor, "*rest hidden"]
) -> Float[Tensor, "*rest"]:
    """Cosine of the mean states of two steps."""
    return F.cosine_similarity(first, second, dim=-1)


def step_weight(cosine: Float[Tensor, "*rest"], kind: Likeness) -> Float[Tensor, "*rest"]:
    """ω of a step: 1 − cos or 1 + cos."""
    return 1 - cosine if kind == "dissimilarity" else 1 + cosine


class BranchWeight(Quantity):
    """ω of each token's step, from the policy's states on it and on the same step of the response with the
    largest score; without a gradient."""

    def __init__(self, score: Quantity, kind: Likeness) -> None:
        super().__init__()
        self.score, self.kind = score, kind

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        there, index = present(batch), merged_index(batch)
        states = batch.models["policy"].signals[TOKEN_STATE].detach()
        means = step_means(states, index, batch)
        score = torch.where(there, per_response(self.score, batch), -torch.inf)
        best = F.one_hot(score.argmax(1), there.shape[1]).to(torch.bool)
        best_means = torch.where(best[..., None, None], means, 0).sum(1, keepdim=True)
        weight = step_weight(similarity(best_means.expand_as(means), means), self.kind)
        others = (there & ~best)[..., None]
        mean = torch.where(others, weight, 0).sum(1, keepdim=True) / others.sum(1, keepdim=True).clamp(min=1)
        return torch.where(best[..., None], mean, weight).gather(-1, index)


def merged_index(batch: PreferenceBatch) -> Int[Tensor, "example response token"]:
    """The place of each token's step, from 0, held at that of the shortest response's last."""
    count = step_starts(batch).sum(-1).clamp(min=1)
    longest = torch.full_like(count, batch.mask.shape[-1])
    shortest = torch.where(present(batch), count, longest).amin(1, keepdim=True).clamp(min=1)
    return torch.minimum(step_index(batch), shortest[..., None] - 1)


def step_means(
    states: Float[Tensor, "example response token hidden"],
    index: Int[Tensor, "example response token"],
    batch: PreferenceBatch,
) -> Float[Tensor, "example response step hidden"]:
    """The mean state of the scored tokens of each step; as many steps as there are tokens, 0 beyond them."""
    states = torch.where(batch.mask[..., None], states.to(batch.lengths.dtype), 0)
    sums = torch.zeros_like(states).scatter_add(2, index[..., None].expand_as(states), states)
    counts = torch.zeros_like(batch.mask, dtype=states.dtype).scatter_add(
        2, index, batch.mask.to(states.dtype)
    )
    return sums / counts.clamp(min=1)[..., None]
