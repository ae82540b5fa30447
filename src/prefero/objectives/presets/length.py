"""Against length bias: the length explains part of the preference, or the longer response's tail counts
less."""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.targets import length_gap
from prefero.objectives.transforms import tail_weight


@published(
    title="R-DPO: length-regularised DPO",
    paper="p027",
    citation="Park et al., 2024, arXiv 2403.19159; iterated by Liu et al., 2024, arXiv 2406.11817",
    equation="−log σ(β h + α (|y_w| − |y_l|))",
    feedback={"pairs"},
    relatives=(
        "Plus, not minus: the length explains part of the label away, so long chosen responses pull less. α "
        "is in reward units per token and outside β. rdpo is another method (label noise)."
    ),
    pitfalls=(
        "With the sign of the bonus wrong the policy gets longer, not shorter. A large α prefers short "
        "answers whatever they say."
    ),
    aliases=("ilr_dpo",),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
)
def r_dpo(beta: Positive = 0.1, alpha: NonNegative = 0.02) -> Objective:
    """The reward has a bonus for length that the policy cannot change, so it stops explaining labels by
    length."""
    return Compare(beta * log_ratio().sum(), target=length_gap(alpha))


@published(
    title="LD-DPO: length desensitisation",
    paper="p070",
    citation="Liu et al., 2024, arXiv 2409.06411",
    equation="DPO with log π̂(y) = Σ_{t≤p} log π(y_t) + α Σ_{t>p} log π(y_t), p = min(|y_w|, |y_l|)",
    feedback={"pairs"},
    relatives=(
        "α = 1 is DPO, α = 0 cuts both responses at the shorter length. The reference's tail is weighted too."
    ),
    pitfalls="What the longer response says at its end is learnt less, also where just that makes it better.",
    equals=(Equal("dpo", at={"alpha": 1.0}),),
)
def ld_dpo(beta: Positive = 0.1, alpha: Share = 0.5) -> Objective:
    """What a response says beyond the other's length counts α as much."""
    return Compare(beta * (tail_weight(alpha) * log_ratio()).sum())


@published(
    title="DPO by tokens: length-normalised DPO",
    citation="Lambert et al., 2024, arXiv 2411.15124; TRL's sigmoid_norm",
    equation="−log σ(β/|y_w| log π(y_w)/π_ref(y_w) − β/|y_l| log π(y_l)/π_ref(y_l))",
    feedback={"pairs"},
    settings={"tülu-3-8b": {"beta": 5.0, "learning_rate": 5e-7}, "tülu-3-70b": {"learning_rate": 2e-7}},
    relatives=(
        "simpo with a reference and without a margin. β acts on a mean over tokens: dpo's values are tens of "
        "times too small."
    ),
    aliases=("sigmoid_norm",),
)
def dpo_norm(beta: Positive = 5.0) -> Objective:
    """The mean log-ratio per token is the reward, so that length by itself earns nothing."""
    return Compare(beta * log_ratio().mean())
