"""Self-refinement: what the policy makes of a pair under a prompt that demands quality sets the margin."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons, Pair
from prefero.objectives.links import squared
from prefero.objectives.quantities import Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.targets import Target

CITATION = "Yu et al., 2024, arXiv 2405.21040"
RELATIVES = (
    "The view `prompted` has the same responses under an instruction that asks for the best possible answer, "
    "before the prompt. That Δ_p is measured against the reference, and multiplied by β, is a reading, after "
    "the margin itself; λ is one too, of the paper's grid. `floor: zero` never asks for less than the plain "
    "loss does."
)
PITFALLS = (
    "The responses must be the same tokens in both views: an instruction that makes them be cut off changes "
    "the margin. Two forward passes a pair."
)


def prompted_gap(reward: Quantity, lam: float, floor: Literal["none", "zero"]) -> Target:
    """λ times the reward's margin in the view ``prompted``, without a gradient."""
    pair = Pair("chosen@prompted", "rejected@prompted")

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        margins, exists = pair(reward, comparisons.batch)
        gap = torch.where(exists, margins, 0).detach()
        return lam * (F.relu(gap) if floor == "zero" else gap)

    return target


@published(
    title="Sr-DPO: quality-aware self-refinement",
    paper="p118",
    citation=CITATION,
    equation="−log σ(β h − λ β sg(Δ_p)), Δ_p = h under the prompt that demands quality",
    feedback={"pairs"},
    relatives=RELATIVES
    + " With the prompt itself as that prompt the loss is dpo's at (1 − λ) β, its pull is not.",
    equals=(Equal("dpo", at={"lam": 0.0}),),
    pitfalls=PITFALLS,
)
def sr_dpo(
    beta: Positive = 0.1, lam: NonNegative = 0.5, floor: Literal["none", "zero"] = "none"
) -> Objective:
    """DPO with a margin that the policy itself sets: the further apart it holds the two responses when asked
    for quality, the more the pair must be won by."""
    reward = beta * log_ratio().sum()
    return Compare(reward, target=prompted_gap(reward, lam, floor))


@published(
    title="Sr-IPO: quality-aware self-refinement",
    paper="p118",
    citation=CITATION,
    equation="(h − λ sg(Δ_p) − 1/(2τ))², Δ_p = h under the prompt that demands quality",
    feedback={"pairs"},
    relatives=RELATIVES + " Sums over tokens, as in the paper's margin; τ plays the part of sr_dpo's β.",
    equals=(Equal("ipo", at={"lam": 0.0}, given={"tokens": "sum"}),),
    pitfalls=PITFALLS,
)
def sr_ipo(tau: Positive = 0.1, lam: NonNegative = 0.5, floor: Literal["none", "zero"] = "none") -> Objective:
    """IPO whose target moves with the margin that the policy sets when asked for quality."""
    reward, gap = log_ratio().sum(), prompted_gap(log_ratio().sum(), lam, floor)
    return Compare(reward, link=squared, target=lambda comparisons: gap(comparisons) + 1 / (2 * tau))
