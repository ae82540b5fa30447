"""Reasoning steps: what is preferred is a step, every step with its own weight, or the branches of a tree of
solutions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prefero.objectives.among import Rank
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons, EveryPair, Pairwise
from prefero.objectives.links import smoothed
from prefero.objectives.quantities import (
    Column,
    Constant,
    Length,
    Map,
    Quantity,
    Sides,
    log_ratio,
    per_response,
    present,
)
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import StepCount, StepReached, StepShare, step_index, step_starts
from prefero.objectives.signals import TOKEN_STATE
from prefero.objectives.slots import discounted_gain


def where(condition, step: Quantity) -> Quantity:
    """1 where a token's step and the example's ``error_step`` fulfil the condition, 0 elsewhere."""
    return Map(lambda own, first: condition(own, first).to(own.dtype), step, Column("error_step").per_token())


@published(
    title="Step-DPO",
    paper="p135",
    citation="Lai et al., 2024, arXiv 2406.18629, eq. 2",
    equation=(
        "−log σ(β log π(s_w|x,s_<k)/π_ref(s_w|x,s_<k) − β log π(s_l|x,s_<k)/π_ref(s_l|x,s_<k)), "
        "s: step k alone"
    ),
    feedback={"pairs", "steps"},
    settings={
        "default": {"beta": 0.5, "learning_rate": 5e-7},
        "qwen2-72b-instruct": {"beta": 0.4, "learning_rate": 5e-7},
    },
    relatives=(
        "DPO on the first step that goes wrong, k in the column error_step; the steps before it are context "
        "and those after it are not scored. scdpo scores everything from that step on."
    ),
    pitfalls=(
        "A step is not the end of an answer: with an end token behind it the model learns to stop there. "
        "Corrections should be the reference's own, not another model's."
    ),
)
def step_dpo(beta: Positive = 0.5) -> Objective:
    """The first wrong step of a solution against a right one after the same steps."""
    scored = where(torch.eq, Column("step"))
    return Compare(beta * (scored * log_ratio()).sum())


@published(
    title="Step-controlled DPO",
    paper="p123",
    citation="Lu et al., 2024, arXiv 2407.00782",
    equation="−log σ(β Σ_{t in steps ≥ k} Δ_t^w − β Σ_{t in steps ≥ k} Δ_t^l)",
    feedback={"pairs", "steps"},
    settings={"default": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "DPO on what follows the shared steps, up to the end, k in the column error_step. The wrong "
        "continuation is sampled at a temperature that rises with every step after the split. The paper "
        "trains on these pairs together with whole wrong solutions, for which k = 1."
    ),
    pitfalls="What an executor prints inside a solution is context: mask it.",
)
def scdpo(beta: Positive = 0.1) -> Objective:
    """A right solution's remaining steps against a continuation that goes wrong after the same steps."""
    scored = where(torch.ge, StepReached())
    return Compare(beta * (scored * log_ratio()).sum())


@published(
    title="Full-Step-DPO",
    paper="p047",
    citation="Xu et al., 2025, arXiv 2502.14356",
    equation=(
        "−log σ(β Σ_i a_i δ_i^w − β Σ_j b_j δ_j^l), a = K softmax(γ ρ^w), b = K softmax(−γ ρ^l) over K steps"
    ),
    feedback={"pairs", "steps", "spans"},
    relatives=(
        "ρ, in [0, 1], is a process reward model's score of a step, the column token_score. The paper leaves "
        "two things open. weight_sum: the weights add up to the number of steps, so that γ = 0 is DPO, or to "
        "one, which shrinks β on long chains. pull: the weighted margin decides how hard a pair pulls, as "
        "written, or the plain one does, as if only DPO's gradient were reweighted. γ is a suggestion."
    ),
    pitfalls=(
        "Good steps lead the chosen side and bad steps the rejected one; with one sign on both sides the "
        "good steps of a wrong answer are unlearned."
    ),
    equals=(Equal("dpo", at={"gamma": 0.0}), Equal("dpo", at={"gamma": 0.0, "pull": "plain"})),
)
def full_step_dpo(
    beta: Positive = 0.1,
    gamma: NonNegative = 2.0,
    weight_sum: Literal["steps", "one"] = "steps",
    pull: Literal["weighted", "plain"] = "weighted",
) -> Objective:
    """DPO whose every step weighs by what a process reward model thinks of it; the weights get no gradient.

    ``pull="plain"`` has the value of DPO's loss, and the gradient of the weighted margin times σ(−β h).
    """
    score = Column("token_score")
    weight: Quantity = Sides(chosen=StepShare(score, gamma), rejected=StepShare(score, -gamma))
    if weight_sum == "steps":
        weight = weight * StepCount().per_token()
    reward = beta * (weight.detach() * log_ratio()).sum()
    if pull == "plain":
        reward = reward + (beta * log_ratio().sum() - reward).detach()
    return Compare(reward)


@published(
    title="MCTS-DPO",
    paper="p023",
    citation="Xie et al., 2024, arXiv 2405.00451; code YuxiXie/MCTS-DPO",
    equation="−(1−ε) log σ(β h) − ε log σ(−β h), ε = min(N_l / (max(1, N_w) + N_l), ½)",
    feedback={"pairs", "steps"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-6}},
    relatives=(
        "cdpo with its own ε for every pair, from how often the search visited the two steps, the column "
        "visits. As many visits to both pull h to 0. The responses are the steps from the first token in "
        "which they differ; prefero.search has the search's arithmetic."
    ),
    pitfalls="Without the cap at ½ a pair whose rejected step was visited more would turn its label around.",
)
def mcts_dpo(beta: Positive = 0.1, length_penalty: NonNegative = 0.0) -> Objective:
    """DPO on siblings of a search tree, whose visit counts say how sure the label is.

    A response's log-ratio is divided by the power ``length_penalty`` of its length, an option of the authors'
    code that they leave off: 1 is the mean over its tokens.
    """
    size = Length().map(lambda length: length.clamp(min=1).pow(length_penalty))
    return Compare(beta * log_ratio().sum() / size, link=smoothed(visited_wrongly))


def visited_wrongly(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
    """The probability that the label is wrong, from the visits of both responses; at most ½."""
    contrast = comparisons.contrast
    assert isinstance(contrast, Pairwise)
    chosen, rejected = contrast.sides(Column("visits"), comparisons.batch)
    return (rejected / (chosen.clamp(min=1) + rejected)).clamp(max=0.5)


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
    """ω of each token's step, by the policy's states on it and on the best response's; no gradient."""

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
