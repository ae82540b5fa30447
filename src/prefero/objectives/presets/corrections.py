"""A model's own answer, an expert's correction of it, and the truth: preferences among the three."""

from __future__ import annotations

from math import exp, log1p

import torch
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons, Each, Pair
from prefero.objectives.quantities import Column, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.reductions import Reduction, Term, number
from prefero.objectives.registry import published
from prefero.objectives.segments import Aligned, ByPosition

CITATION = "Yang et al., 2025, arXiv 2501.09695"

RESPONSES = (
    "The roles are gold (the ground truth), revised (the expert's correction) and rejected (the model's own "
    "answer); the view `corrupted` shows an image with 30 % of its pixels at the image's mean. Each sentence "
    "has the expert's score, 4 (right) to 1, as token_score, and image_weight 3 where it misreads the image."
)


def severity() -> Quantity:
    """The weight of a sentence's tokens by its score, 4 to 1: 1, 1.5, 2 or 2.5; 1 without a score (0)."""
    return Column("token_score").map(lambda score: torch.where(score > 0, 3 - score / 2, 1.0))


@published(
    title="OPA-DPO: on-policy aligned corrections",
    paper="p168",
    citation=CITATION,
    equation=(
        "ℓ(R(gt) − R(gen)) + ℓ(R_s(rev) − R_s(gen)) "
        "+ c_i [ℓ(R(gt, m) − R(gt, m̃)) + ℓ(R_e(rev, m) − R_e(rev, m̃))] "
        "+ c_a [ℓ(R(gt) − a) + ℓ(R(rev) − a) + ℓ(a − R(gen))], ℓ = −log σ, R_w = β Σ_t w_t log π/π_ref"
    ),
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-6}},
    relatives=(
        "The policy is first fine-tuned on gold and revised responses, and is then its own reference: the "
        "corrections are on-policy for it. opa_dpo_released is what the published code computes. " + RESPONSES
    ),
    aliases=("opa_dpo_sequence",),
    pitfalls=(
        "Without the supervised stage the corrections are so unlikely under the reference that DPO learns "
        "nothing from them: look at their mean log-probability first."
    ),
)
def opa_dpo(
    beta: Positive = 0.1,
    image_coefficient: NonNegative = 0.2,
    anchor: Real = 0.0,
    anchor_coefficient: NonNegative = 1.0,
) -> Objective:
    """Truth and correction over the model's own answer, under the true image over a corrupted one, and on
    their sides of an anchor."""
    reward = beta * log_ratio().sum()
    severe = beta * (severity() * log_ratio()).sum()
    misread = Aligned("revised", "revised@corrupted", weight=Column("image_weight"))
    language = Compare(reward, Pair("gold", "rejected")) + Compare(severe, Pair("revised", "rejected"))
    images = Compare(reward, Pair("gold", "gold@corrupted")) + Compare(beta * log_ratio(), misread)
    above = Compare(reward, Each("gold"), target=anchor) + Compare(reward, Each("revised"), target=anchor)
    anchors = above + Compare(reward, Each("rejected", sign=-1.0), target=-anchor)
    return language + image_coefficient * images + anchor_coefficient * anchors


def mean_of_positions(length: float | None, beyond: float) -> Reduction:
    """The mean over ``length`` positions of each example, at least its longer response (None: that many);
    positions that are not there cost ``beyond`` each."""

    def reduce(losses: Tensor, comparisons: Comparisons) -> list[Term]:
        contrast, exists = comparisons.contrast, comparisons.mask.any(1)
        assert isinstance(contrast, ByPosition)
        size = contrast.longest(comparisons.batch).clamp(min=1 if length is None else length)
        absent = (size - losses.shape[1]) * beyond
        values = torch.where(exists, (losses.sum(1) + absent) / size, 0)
        return [Term(values.sum(), number(exists, losses), True, values)]

    return reduce


@published(
    title="OPA-DPO, as released",
    paper="p168",
    citation=f"{CITATION}; the authors' trainer",
    equation=(
        "the four comparisons of opa_dpo position by position, each averaged over all positions, padding "
        "included, + 2 c_a [ℓ(R_t(gt) − a) + ℓ(a − R_t(rev))]"
    ),
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-6}},
    relatives=(
        "For comparison with published numbers only: opa_dpo is the paper's objective. Unrelated words meet "
        "where they stand at the same position, a position without tokens costs log 2, and the anchor pulls "
        "the corrections down and leaves the model's own answer alone. The code pads to the longest response "
        "of its batch, so that the loss depends on the batch; padded_length fixes it, and without it an "
        "example is as long as the longer of the two responses compared. " + RESPONSES
    ),
    pitfalls="Use opa_dpo.",
)
def opa_dpo_released(
    beta: Positive = 0.1,
    image_coefficient: NonNegative = 0.2,
    anchor: Real = 0.0,
    anchor_coefficient: NonNegative = 1.0,
    padded_length: Positive | None = None,
) -> Objective:
    """What the published trainer of OPA-DPO minimises."""
    reward = beta * log_ratio()

    def compare(contrast: ByPosition, target: float = 0.0) -> Compare:
        empty = log1p(exp(target)) if target < 30 else target
        return Compare(reward, contrast, target=target, reduce=mean_of_positions(padded_length, empty))

    severe = ByPosition("revised", "rejected", weight=severity())
    misread = ByPosition("revised", "revised@corrupted", weight=Column("image_weight"))
    language = compare(ByPosition("gold", "rejected")) + compare(severe)
    images = compare(ByPosition("gold", "gold@corrupted")) + compare(misread)
    anchors = compare(ByPosition("gold"), anchor) + compare(ByPosition("revised", sign=-1.0), -anchor)
    return language + image_coefficient * images + 2 * anchor_coefficient * anchors
