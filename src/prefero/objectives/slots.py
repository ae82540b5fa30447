"""What can be put into any method's slots (another reward, a weight, another target, another reduction), and
the names that a configuration gives to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.among import shorter_length
from prefero.objectives.compare import Compare, Objective, Slot, Sum, fill, is_penalty
from prefero.objectives.contrasts import Comparisons, PerComparison
from prefero.objectives.links import capped
from prefero.objectives.quantities import (
    Column,
    Constant,
    Length,
    Logp,
    Map,
    Measured,
    Position,
    Quantity,
    TokenSum,
)
from prefero.objectives.ranges import NonNegative, OpenShare, Positive, Share
from prefero.objectives.reductions import mean_of_all, mean_of_means, mean_of_sums, soft_minimum, worst_group
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED

Offset = Literal["log", "identity", "log_ratio"]


def score_gap(alpha: NonNegative = 1.0, offset: Offset = "log") -> PerComparison:
    """α f(s_w − s_l): the better the better response is scored, the more it must win by; f is the logarithm
    or nothing. ``log_ratio`` is α log(s_w / s_l), of positive scores. What a logarithm is taken of is held at
    1e-6 and above. Amini et al., 2024, arXiv 2402.10571, eq. 5."""
    score: Quantity = Column("score")
    if offset == "log_ratio":
        score = score.map(lambda values: values.clamp(min=1e-6).log())

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        gap = comparisons.gap(score)
        return alpha * (gap.clamp(min=1e-6).log() if offset == "log" else gap)

    return target


def length_gap(alpha: NonNegative = 0.02) -> PerComparison:
    """−α (|y_w| − |y_l|): what a preference for length explains need not be won, α in reward units per token.
    Park et al., 2024, arXiv 2403.19159."""
    length = Length()

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return -alpha * comparisons.gap(length)

    return target


Alignment = Literal["sampled", "greedy", "none"]


def on_policy_likelihood(alignment: Alignment = "sampled") -> Quantity:
    """log w(y), without a gradient: how likely the policy is to write the response, per token.

    The mean over tokens of log π(token) minus what the policy's own text would score there: log Σ p² for
    sampled text, log max p for greedy text. Zhou et al., 2024, arXiv 2406.11827.
    """
    per_token: Quantity = Logp()
    if alignment != "none":
        per_token = per_token - Measured(LOG_SUM_P_SQUARED if alignment == "sampled" else LOG_MAX_P)
    return per_token.mean().detach()


def wpo(alignment: Alignment = "sampled", clamp: Positive | None = 1.0) -> PerComparison:
    """WPO's weight of a comparison: the product of w(y) over its responses, at most ``clamp``: 1 in the
    authors' code, None in TRL."""
    likelihood = on_policy_likelihood(alignment)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        product = comparisons.total(likelihood).exp()
        return product if clamp is None else product.clamp(max=clamp)

    return weight


def score_weight(scale: NonNegative = 1.0, shape: Literal["sigmoid", "linear"] = "sigmoid") -> PerComparison:
    """OPTune's weight of a comparison: σ(scale · (s_w − s_l)), how sure Bradley and Terry are of the label,
    or the scaled gap itself. Chen et al., 2024, arXiv 2406.07657."""
    score = Column("score")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        gap = scale * comparisons.gap(score)
        return gap.sigmoid() if shape == "sigmoid" else gap

    return weight


def given() -> PerComparison:
    """The example's own weight, its column ``weight``; the mean of the two where responses of different
    examples meet. Weights are not normalised: the loss is Σ w ℓ over the number of examples."""
    column = Column("weight")

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        if not comparisons.contrast.whole_step:
            return column(comparisons.batch)
        return comparisons.total(column) / comparisons.total(Constant(1.0)).clamp(min=1)

    return weight


def exponential_gain(score: Quantity) -> Quantity:
    """2^s − 1, for scores in [0, 1]."""
    return score.map(lambda values: torch.expm1(values * math.log(2)))


def logarithmic_discount(rank: Quantity) -> Quantity:
    """ln(1 + τ), for places τ from 1."""
    return rank.map(torch.log1p)


def discounted_gain(score: Quantity, rank: Quantity) -> PerComparison:
    """|G_i − G_j| |1/D_i − 1/D_j|: the change of a ranking's discounted cumulative gain if two responses were
    exchanged; no gradient. Wang et al., 2018, The LambdaLoss framework; for preferences Liu et al., 2024,
    arXiv 2402.01878."""
    gain, share = exponential_gain(score), logarithmic_discount(rank).map(torch.reciprocal)

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (comparisons.gap(gain).abs() * comparisons.gap(share).abs()).detach()

    return weight


Divergence = Literal["reverse_kl", "forward_kl", "jsd", "alpha"]
Transform = Callable[[Quantity], Quantity]
"""Of a reward."""


def derivative(divergence: Divergence, alpha: float, room: float = 0.9) -> Callable[[Tensor], Tensor]:
    """u ↦ f′(e^u) − f′(1), which is 0 where the policy is the reference, for the divergence f that
    regularises; ``room`` is the share of the type's range that exponents may fill."""
    if divergence == "jsd":
        return lambda u: F.logsigmoid(u) + math.log(2)
    power = {"reverse_kl": 0.0, "forward_kl": 1.0, "alpha": alpha}[divergence]
    return lambda u: power_transform(u, power, room)


def power_transform(u: Float[Tensor, "..."], alpha: float, room: float = 0.9) -> Float[Tensor, "..."]:
    """(1 − e^{−αu})/α, which is u at α = 0: rises with u for every α, and is bent the more the larger |α|."""
    return -torch.expm1(capped(-alpha * u, room)) / alpha if alpha else u


def tail_weight(alpha: float) -> Quantity:
    """1 for the tokens up to the shorter response's length, α for those beyond it."""
    return Map(
        lambda position, shorter: torch.where(position <= shorter[..., None], 1.0, alpha),
        Position(),
        shorter_length(),
    )


def f_divergence(divergence: Divergence = "forward_kl", alpha: OpenShare = 0.5) -> Transform:
    """f′(π/π_ref) for log π/π_ref of the whole response, as in f-DPO (Wang et al., 2023, arXiv 2309.16240).

    Exponents fill less of the type's range than in f_dpo, so that links may square what comes of them.
    """
    bent = derivative(divergence, alpha, room=0.4)
    return lambda reward: substituted(reward, lambda ratio: ratio.map(bent))


def length_desensitised(alpha: Share = 0.5) -> Transform:
    """LD-DPO (Liu et al., 2024, arXiv 2409.06411): tokens beyond the shorter response's length count α."""
    return lambda reward: substituted(reward, lambda ratio: TokenSum(tail_weight(alpha) * ratio.of))


def substituted(reward: Quantity, change: Callable[[TokenSum], Quantity]) -> Quantity:
    """The reward with ``change`` of every log-ratio of a whole response in its place.

    Raises :class:`~prefero.errors.PreferoError` if it has none, or parts that learn.
    """
    if next(reward.parameters(), None) is not None:
        raise PreferoError("it has a reward with parts that learn, and those cannot be put elsewhere")
    root = nn.ModuleList([copy.deepcopy(reward)])
    found = [
        (parent, name, part)
        for parent in root.modules()
        for name, part in parent.named_children()
        if is_log_ratio(part)
    ]
    if not found:
        raise PreferoError("it has no log-ratio of whole responses to a reference")
    for parent, name, part in found:
        assert isinstance(part, TokenSum)
        parent._modules[name] = change(part)
    (changed,) = root
    assert isinstance(changed, Quantity)
    return changed


def is_log_ratio(part: nn.Module) -> bool:
    """Whether it is Σ_t log π(y_t) − log π′(y_t)."""
    inner = part.of if isinstance(part, TokenSum) else None
    return (
        isinstance(inner, Map)
        and inner.function is torch.sub
        and all(isinstance(side, Logp) for side in inner.arguments)
    )


SLOTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "reward": {"f_dpo": f_divergence, "ld_dpo": length_desensitised},
    "weight": {"wpo": wpo, "score_gap": score_weight, "given": given},
    "target": {"score_gap": score_gap, "length_gap": length_gap},
    "reduce": {"soft_minimum": soft_minimum, "worst_group": worst_group},
}
"""The names that a configuration may give for each slot."""

MEANS = (mean_of_sums, mean_of_means, mean_of_all)
"""Reductions that another one can take the place of."""


def filled(objective: Objective, slot: str, value: Any) -> Objective:
    """The objective whose comparisons have another reward, one more weight (multiplied), one more target
    (added), or another reduction; penalties stay as they are.

    Raises :class:`~prefero.errors.PreferoError` if there is no comparison that it could belong to.
    """
    if objective.update is not None:
        raise PreferoError("it steps by a rule of its own, which reads no slot")
    if isinstance(objective, Sum):
        parts = objective.weighted_parts()
        if slot == "reduce" and sum(not is_penalty(part) for _, part in parts) > 1:
            raise PreferoError("it has several comparisons, and one reduction cannot see them together")
        return Sum(*((c, part if is_penalty(part) else filled(part, slot, value)) for c, part in parts))
    if not isinstance(objective, Compare):
        raise PreferoError("it makes no comparisons of responses, and a slot belongs to those")
    slots = {name: getattr(objective, name) for name in ("target", "scale", "weight", "reduce")}
    reward = objective.reward
    if slot == "reward":
        reward = value(reward)
    elif slot == "weight":
        slots["weight"] = Combined(torch.mul, objective.weight, value)
    elif slot == "target":
        slots["target"] = Combined(torch.add, objective.target, value)
    elif objective.reduce in MEANS:
        slots["reduce"] = value
    else:
        raise PreferoError("it has a reduction of its own")
    return Compare(reward, objective.contrast, objective.link, **slots)


class Combined(nn.Module):
    """Two slots made one; a module, so that a slot's state stays part of the objective."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], first: Slot, second: Slot) -> None:
        super().__init__()
        self.function, self.first, self.second = function, first, second

    def forward(self, comparisons: Comparisons) -> Tensor:
        ones = torch.ones_like(comparisons.margins)
        return self.function(ones * fill(self.first, comparisons), ones * fill(self.second, comparisons))
