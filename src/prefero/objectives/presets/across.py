"""Across the batch: every good response against every bad one, also those of other prompts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Across, AcrossBatch, AcrossLabels, Comparisons
from prefero.objectives.quantities import Column, log_ratio
from prefero.objectives.ranges import Positive, Share
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published

CITATION = "Yin et al., 2024, arXiv 2402.10958"
NAMESAKES = (
    "Other papers call other methods RPO (reward-aware, regularised, reasoning). The contrasts are those of "
    "the whole optimizer step here, of a micro-batch in the authors' code; τ and the batch size both change "
    "the effective β."
)


def prompt_similarity(
    contrast: AcrossBatch, tau: float
) -> Callable[[Comparisons], Float[Tensor, "row comparison"]]:
    """softmax over a row's comparisons of −(cosine distance of the prompts)/τ: a scale, without a
    gradient."""
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
    citation=CITATION,
    equation="1/N Σ_j −log σ(ω_ij β [u(y_w,i) − u(y_l,j)]), ω = softmax_j(−cosine distance of prompts/τ)",
    feedback={"pairs"},
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
    citation=CITATION,
    equation="1/N Σ_j −log σ(β [u(y_w,i) − u(y_l,j)])",
    feedback={"pairs"},
    relatives=NAMESAKES,
)
def rpo_relative_uniform(beta: Positive = 0.1) -> Objective:
    """Every chosen against every rejected response, all alike: no embeddings are needed."""
    return Compare(beta * log_ratio().sum(), Across(), reduce=mean_of_means)


@published(
    title="Relative preference optimization, diagonal",
    paper="p021",
    citation=CITATION,
    equation="α DPO(i, i) + (1−α) mean_{j≠i} −log σ(β [u(y_w,i) − u(y_l,j)])",
    feedback={"pairs"},
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
    citation=CITATION,
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
