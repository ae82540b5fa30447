"""The same answer under another image or video: what is seen is compared, not only what is said."""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Each, Pair
from prefero.objectives.quantities import log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.registry import Equal, published


@published(
    title="mDPO: conditional preference optimization",
    paper="p077",
    citation="Wang et al., 2024, arXiv 2406.11839",
    equation=(
        "−log σ(R(y_w,m) − R(y_l,m)) − log σ(R(y_w,m) − R(y_w,m′)) − log σ(R(y_w,m) − δ), R = β log π/π_ref"
    ),
    feedback={"pairs"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-5}},
    relatives=(
        "The middle term alone is vdpo. The policy and the reference see the same corrupted image m′, a crop "
        "of 1 to 20 % of the true one, drawn anew for every step."
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
    """DPO, plus the true image preferred to a corrupted one for the same answer, plus a floor under the
    chosen response's reward."""
    reward = beta * log_ratio().sum()
    image = Compare(reward, Pair("chosen", "chosen@corrupted"))
    floor = Compare(reward, Each("chosen"), target=anchor)
    return Compare(reward) + image_weight * image + anchor_weight * floor


@published(
    title="VDPO: video preference for a fixed answer",
    paper="p106",
    citation="Ding et al., 2025, arXiv 2504.05810",
    equation="−log σ(β [log π(y|v,q)/π_ref(y|v,q) − log π(y|v⁻,q)/π_ref(y|v⁻,q)])",
    feedback={"pairs"},
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
