"""Doubly robust preference optimization: a preference model where it is right, labels where it is not."""

from __future__ import annotations

import math
from typing import Literal

from prefero.objectives.compare import Objective, penalty
from prefero.objectives.presets.group_relative import k3
from prefero.objectives.quantities import Column, Logp, Quantity, log_ratio, quantity
from prefero.objectives.ranges import AtLeastOne, NonNegative, Share
from prefero.objectives.registry import published


def correction(won: Quantity | float, address: str, clip: float) -> Objective:
    """−sg(clip(π/π_ref) (z − ĝ)) log π(y) of the response at an address, for which ĝ was off."""
    bound = math.log(clip)
    trust = log_ratio().sum().map(lambda u: u.clamp(-bound, bound).exp()).detach()
    surprise = quantity(won) - Column("win_rate")
    return penalty(-(trust * surprise * Logp().sum()), address)


@published(
    title="DRPO: doubly robust preference optimization",
    paper="p054",
    citation="Xu et al., 2025, arXiv 2506.01183",
    equation=(
        "½ Σ_{a ∈ {y_w, y_l}} −sg(clip(π(a)/π_ref(a), 1/c, c) (z_a − ĝ_a)) log π(a) "
        "− sg(ĝ(y*) − b) log π(y*) + β Σ_t (e^{d_t} − d_t − 1), d = log π_ref/π on y* ~ π"
    ),
    feedback={"pairs", "samples"},
    settings={"default": {"beta": 0.04, "clip": 2.5, "learning_rate": 5e-7}},
    relatives=(
        "win_rate holds ĝ: of a response of the pair against the other one; of `sample`, drawn from the "
        "policy of this step, the mean against both (with halves: first, against the second). The released "
        "code reads the first response alone (halves: first; the column label says whether it won), and one "
        "of its branches subtracts b = ½ from ĝ(y*), which lowers the variance (baseline). Another method "
        "called DRPO ranks lists."
    ),
    pitfalls=(
        "With halves: first the order of the two responses must not tell which won: shuffle pairs that name "
        "the winner first. `sample` must come from the current policy, at the temperature of the scores."
    ),
)
def drpo(
    beta: NonNegative = 0.04,
    clip: AtLeastOne = 2.5,
    halves: Literal["both", "first"] = "both",
    baseline: Share = 0.0,
) -> Objective:
    """Raises the policy's samples by their predicted win rate, and corrects the prediction with the labels of
    the pairs: right if either the preference model or the reference is.

    The ratio is that of the whole response, clipped before the exponential; neither it nor ĝ has a gradient.
    """
    if halves == "both":
        labelled = 0.5 * correction(1.0, "chosen", clip) + 0.5 * correction(0.0, "rejected", clip)
    else:
        labelled = correction((Column("label") + 1) / 2, "first", clip)
    direct = penalty(-((Column("win_rate") - baseline) * Logp().sum()), "sample")
    return labelled + direct + beta * penalty(k3().sum(), "sample")
