"""The same responses in another view: under another image or video, under another prompt, or under one that
asks for quality.

``contradicted`` has a prompt whose instructions the chosen response breaks, ``weaker`` one under which the
preference is weaker or reversed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons, Each, Pair, PerComparison
from prefero.objectives.links import squared
from prefero.objectives.quantities import Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.registry import Equal, published


@published(
    title="mDPO: conditional preference optimization",
    paper="p077",
    citation="Wang et al., 2024, arXiv 2406.11839",
    equation=(
        "−log σ(R(y_w,m) − R(y_l,m)) − log σ(R(y_w,m) − R(y_w,m′)) − log σ(R(y_w,m) − δ), R = β log π/π_ref"
    ),
    settings={"default": {"beta": 0.1, "learning_rate": 1e-5}},
    relatives=(
        "The middle term alone is vdpo. The policy and the reference see the same corrupted image m′, a crop "
        "of 1 to 20 % of the true one; the paper draws it in each step, here it is drawn once for an example."
    ),
    pitfalls=(
        "The reference must be evaluated on the corrupted image as well; without it the middle term compares "
        "two likelihoods, not two rewards. The gradient pushes the answer's likelihood under the corrupted "
        "image down."
    ),
    equals=(Equal("dpo", at={"image_weight": 0.0, "anchor_weight": 0.0}),),
)
def mdpo(
    beta: Positive = 0.1,
    anchor: Real = 0.0,
    image_weight: NonNegative = 1.0,
    anchor_weight: NonNegative = 1.0,
) -> Objective:
    """DPO, the true image preferred to a corrupted one, and a floor under the chosen response's reward."""
    reward = beta * log_ratio().sum()
    image = Compare(reward, Pair("chosen", "chosen@corrupted"))
    floor = Compare(reward, Each("chosen"), target=anchor)
    return Compare(reward) + image_weight * image + anchor_weight * floor


@published(
    title="VDPO: video preference for a fixed answer",
    paper="p106",
    citation="Ding et al., 2025, arXiv 2504.05810",
    equation="−log σ(β [log π(y|v,q)/π_ref(y|v,q) − log π(y|v⁻,q)/π_ref(y|v⁻,q)])",
    relatives=(
        "mDPO's middle term. Which augmented clip v⁻ is compared (close to the original, far for the prompt) "
        "is chosen before, without a gradient."
    ),
    pitfalls=(
        "A clip whose augmentation does not matter for the question makes a false preference; one that is "
        "unrelated makes a trivial one."
    ),
)
def vdpo(beta: Positive = 0.1) -> Objective:
    """The original clip is preferred to an augmented one, for one and the same answer."""
    return Compare(beta * log_ratio().sum(), Pair("chosen", "chosen@corrupted"))


MULTI_LEVEL = "Sun et al., 2025, arXiv 2505.12845"
VIEWS = (
    "The view `contradicted` has the prompt that the response does not satisfy, `weaker` the prompt under "
    "which the pair's preference is weaker."
)


@published(
    title="Multi-level aware preference learning, within a prompt",
    paper="p095",
    citation=MULTI_LEVEL,
    equation="−log σ(β [log π(y|x_w)/π_ref(y|x_w) − log π(y|x_l)/π_ref(y|x_l)])",
    relatives=(
        "One response under two prompts, not two responses: the prompts' normalisers do not cancel and are "
        "dropped. " + VIEWS
    ),
    pitfalls="The response must be the same tokens under both prompts, and truncation must spare the prompt.",
)
def mapl_intra(beta: Positive = 0.1) -> Objective:
    """A response is likelier under the prompt that it satisfies than under one that it does not."""
    return Compare(beta * log_ratio().sum(), Pair("chosen", "chosen@contradicted"))


@published(
    title="Multi-level aware preference learning, between prompts",
    paper="p095",
    citation=MULTI_LEVEL,
    equation="−log σ(M(x₁) − M(x₂)), M(x) = β [u(y_w|x) − u(y_l|x)]",
    relatives=(
        "A reconstruction from the abstract and a review: the preference is stronger under the example's own "
        "prompt x₁ than under x₂. " + VIEWS
    ),
)
def mapl_inter(beta: Positive = 0.1) -> Objective:
    """The margin of a pair is larger under the prompt that asks for what tells the two apart."""
    return Compare(beta * log_ratio().sum(), Pair() - Pair("chosen@weaker", "rejected@weaker"))


@published(
    title="Multi-level aware preference learning",
    paper="p095",
    citation=MULTI_LEVEL,
    equation="−log σ(β h) + λ₁ L_intra + λ₂ L_inter",
    relatives="The weights are a reconstruction too, 1 each. " + VIEWS,
    equals=(
        Equal("mapl_intra", at={"pair": 0.0, "intra": 1.0, "inter": 0.0}),
        Equal("mapl_inter", at={"pair": 0.0, "intra": 0.0, "inter": 1.0}),
        Equal("dpo", at={"intra": 0.0, "inter": 0.0}),
    ),
)
def mapl(
    beta: Positive = 0.1, pair: NonNegative = 1.0, intra: NonNegative = 1.0, inter: NonNegative = 1.0
) -> Objective:
    """DPO with preferences between prompts beside those between responses."""
    reward = beta * log_ratio().sum()
    return pair * Compare(reward) + intra * mapl_intra(beta) + inter * mapl_inter(beta)


SELF_REFINEMENT = "Yu et al., 2024, arXiv 2405.21040"
PROMPTED = (
    "The view `prompted` has the same responses under an instruction that asks for the best possible answer, "
    "before the prompt. That Δ_p is measured against the reference, and multiplied by β, is a reading, after "
    "the margin itself; λ is one too, of the paper's grid. `floor: zero` never asks for less than the plain "
    "loss does."
)
SAME_TOKENS = (
    "The responses must be the same tokens in both views: an instruction that makes them be cut off changes "
    "the margin. Two forward passes a pair."
)


def prompted_gap(reward: Quantity, lam: float, floor: Literal["none", "zero"]) -> PerComparison:
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
    citation=SELF_REFINEMENT,
    equation="−log σ(β h − λ β sg(Δ_p)), Δ_p = h under the prompt that demands quality",
    relatives=PROMPTED
    + " With the prompt itself as that prompt the loss is dpo's at (1 − λ) β, its pull is not.",
    equals=(Equal("dpo", at={"lam": 0.0}),),
    pitfalls=SAME_TOKENS,
)
def sr_dpo(
    beta: Positive = 0.1, lam: NonNegative = 0.5, floor: Literal["none", "zero"] = "none"
) -> Objective:
    """DPO that must be won by more, the further apart the policy holds the two when asked for quality."""
    reward = beta * log_ratio().sum()
    return Compare(reward, target=prompted_gap(reward, lam, floor))


@published(
    title="Sr-IPO: quality-aware self-refinement",
    paper="p118",
    citation=SELF_REFINEMENT,
    equation="(h − λ sg(Δ_p) − 1/(2τ))², Δ_p = h under the prompt that demands quality",
    relatives=PROMPTED + " Sums over tokens, as in the paper's margin; τ plays the part of sr_dpo's β.",
    equals=(Equal("ipo", at={"lam": 0.0}, given={"tokens": "sum"}),),
    pitfalls=SAME_TOKENS,
)
def sr_ipo(tau: Positive = 0.1, lam: NonNegative = 0.5, floor: Literal["none", "zero"] = "none") -> Objective:
    """IPO whose target moves with the margin that the policy sets when asked for quality."""
    reward, gap = log_ratio().sum(), prompted_gap(log_ratio().sum(), lam, floor)
    return Compare(reward, link=squared, target=lambda comparisons: gap(comparisons) + 1 / (2 * tau))
