"""Across the batch: every good response against every bad one, also those of other prompts, or quantile
against quantile, as optimal transport has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import (
    Across,
    AcrossBatch,
    AcrossLabels,
    Comparisons,
    Contrast,
    Each,
    GapOf,
    Margins,
    Pair,
    PerComparison,
)
from prefero.objectives.links import smoothed
from prefero.objectives.quantities import Column, Logp, Quantity, log_ratio
from prefero.objectives.ranges import FlipRate, Positive, Share
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published

RELATIVE = "Yin et al., 2024, arXiv 2402.10958"
NAMESAKES = (
    "Other papers call other methods RPO (reward-aware, regularised, reasoning). The contrasts are those of "
    "the whole optimizer step here, of a micro-batch in the authors' code; τ and the batch size both change "
    "the effective β."
)


def prompt_similarity(contrast: AcrossBatch, tau: float) -> PerComparison:
    """softmax over a row's comparisons of −(cosine distance of the prompts)/τ: a scale, no gradient."""
    embedding = Column("prompt_embedding")

    def scale(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        batch = comparisons.batch
        direction = F.normalize(contrast.rows(embedding(batch), batch), dim=-1)
        closeness = (direction @ direction.T - 1) / tau
        return torch.where(comparisons.mask, closeness, -torch.inf).softmax(1)

    return scale


@published(
    title="Relative preference optimization",
    paper="p021",
    citation=RELATIVE,
    equation="1/N Σ_j −log σ(ω_ij β [u(y_w,i) − u(y_l,j)]), ω = softmax_j(−cosine distance of prompts/τ)",
    relatives=NAMESAKES + " One pair alone is DPO.",
)
def rpo_relative(beta: Positive = 0.1, tau: Positive = 0.5) -> Objective:
    """Every chosen against every rejected response, weighted inside σ by how alike their prompts are."""
    contrast = Across()
    return Compare(
        beta * log_ratio().sum(), contrast, scale=prompt_similarity(contrast, tau), reduce=mean_of_means
    )


@published(
    title="Relative preference optimization, uniform",
    paper="p021",
    citation=RELATIVE,
    equation="1/N Σ_j −log σ(β [u(y_w,i) − u(y_l,j)])",
    relatives=NAMESAKES,
)
def rpo_relative_uniform(beta: Positive = 0.1) -> Objective:
    """Every chosen against every rejected response, all alike: no embeddings are needed."""
    return Compare(beta * log_ratio().sum(), Across(), reduce=mean_of_means)


@published(
    title="Relative preference optimization, diagonal",
    paper="p021",
    citation=RELATIVE,
    equation="α DPO(i, i) + (1−α) mean_{j≠i} −log σ(β [u(y_w,i) − u(y_l,j)])",
    relatives=NAMESAKES + " One pair alone is DPO.",
    equals=(Equal("dpo", at={"diagonal": 1.0}),),
)
def rpo_relative_diagonal(beta: Positive = 0.1, diagonal: Share = 0.8) -> Objective:
    """Each pair's own comparison has a fixed share of its loss, those with other prompts share the rest."""

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        mask = comparisons.mask.to(comparisons.margins.dtype)
        own = torch.eye(len(mask), dtype=mask.dtype, device=mask.device) * mask
        others = mask - own
        shares = diagonal * own + (1 - diagonal) * others / others.sum(1, keepdim=True).clamp(min=1)
        # the reduction averages over a row's comparisons; a row without others gives its own pair everything
        return shares / shares.sum(1, keepdim=True) * mask.sum(1, keepdim=True)

    return Compare(beta * log_ratio().sum(), Across(), weight=weight, reduce=mean_of_means)


@published(
    title="Relative preference optimization, unpaired",
    paper="p021",
    citation=RELATIVE,
    equation="1/N Σ_j −log σ(ω_ij β [u(y_i) − u(y_j)]), i desirable, j undesirable",
    feedback={"unpaired"},
    relatives=NAMESAKES + " A batch with one kind of response only has no loss.",
)
def rpo_relative_unpaired(beta: Positive = 0.1, tau: Positive = 0.5) -> Objective:
    """Every desirable response of the batch against every undesirable one, weighted by prompt similarity."""
    contrast = AcrossLabels()
    return Compare(
        beta * log_ratio().sum(), contrast, scale=prompt_similarity(contrast, tau), reduce=mean_of_means
    )


TRANSPORT = "Melnyk et al., 2024, arXiv 2406.05882"
QUANTILES = (
    "The quantiles are those of the whole optimizer step here, of a micro-batch in TRL. An example is pulled "
    "by its rank in the step, so weights of pairs do not go with it."
)


class Ordered(Contrast):
    """Another contrast's quantiles: the i-th row that has a comparison gets the i-th smallest margin of the
    batch, with its gradient."""

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
    citation=TRANSPORT,
    equation=(
        "mean_i −log σ(β [q_i(log π(y_w) − log π(y_l)) − q_i(log π_ref(y_w) − log π_ref(y_l))]), "
        "q_i = i-th smallest of the step"
    ),
    relatives="aot_unpaired sorts the rewards of the two sides apart from each other. One pair alone is dpo. "
    + QUANTILES,
    pitfalls="With few pairs a step the quantiles are coarse: the method is as good as its step is large.",
)
def aot(beta: Positive = 0.1, smoothing: FlipRate = 0.0) -> Objective:
    """The policy's margins dominate the reference's quantile by quantile (first-order dominance)."""
    reference = GapOf(beta * Logp("reference").sum())
    return Compare(beta * Logp().sum(), Ordered(Pair()), smoothed(smoothing), target=reference)


@published(
    title="AOT: alignment by optimal transport, unpaired",
    citation=TRANSPORT,
    equation="mean_i −log σ(β [q_i(u(y_w)) − q_i(u(y_l))]), u = log π/π_ref, q_i = i-th smallest of the step",
    relatives=(
        "It does not matter which rejected response belongs to which chosen one, so the two sides may have "
        "prompts of their own. One pair alone is dpo. " + QUANTILES
    ),
    pitfalls="With few pairs a step the quantiles are coarse: the method is as good as its step is large.",
)
def aot_unpaired(beta: Positive = 0.1, smoothing: FlipRate = 0.0) -> Objective:
    """The rewards of the chosen responses dominate those of the rejected ones quantile by quantile."""
    sides = Ordered(Each("chosen")) - Ordered(Each("rejected"))
    return Compare(beta * log_ratio().sum(), sides, smoothed(smoothing))
