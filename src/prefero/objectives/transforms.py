"""Rewards reshaped: what takes the place of a whole response's log-ratio, in any method that has one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.among import ShorterLength
from prefero.objectives.links import capped
from prefero.objectives.quantities import Logp, Map, Position, Quantity, TokenSum
from prefero.objectives.ranges import OpenShare, Share

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
        ShorterLength("chosen", "rejected"),
    )


def f_divergence(divergence: Divergence = "forward_kl", alpha: OpenShare = 0.5) -> Transform:
    """f′(π/π_ref) for log π/π_ref of the whole response, as in f-DPO (Wang et al., 2023, arXiv 2309.16240).

    Exponents fill less of the type's range than in f_dpo, so that links may square what comes of them.
    """
    bent = derivative(divergence, alpha, room=0.4)
    return lambda reward: substituted(reward, lambda ratio: ratio.map(bent))


def length_desensitised(alpha: Share = 0.5) -> Transform:
    """Tokens beyond the shorter response's length count α, as in LD-DPO (Liu et al., 2024, arXiv
    2409.06411)."""
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
