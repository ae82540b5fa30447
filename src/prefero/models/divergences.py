"""Divergences of next-token distributions: p, the model that is measured, against q, the second one.

Both come as log-probabilities over the vocabulary; the results are in nats, or without a unit. All are 0 at
p = q and positive elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LogDistribution = Float[Tensor, "*rows vocabulary"]
Rows = Float[Tensor, "*rows"]


def kl(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ p log(p/q)."""
    return (p.exp() * (p - q)).sum(-1)


def jensen_shannon(p: LogDistribution, q: LogDistribution) -> Rows:
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q); at most log 2."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return (kl(p, middle) + kl(q, middle)) / 2


def renyi(p: LogDistribution, q: LogDistribution, order: float) -> Rows:
    """log(Σ p^a q^{1−a}) / (a − 1), which at order a = 1 is KL(p ‖ q)."""
    return kl(p, q) if order == 1 else (order * p + (1 - order) * q).logsumexp(-1) / (order - 1)


def bhattacharyya(p: LogDistribution, q: LogDistribution) -> Rows:
    """−log Σ √(p q)."""
    return -((p + q) / 2).logsumexp(-1)


def squared_hellinger(p: LogDistribution, q: LogDistribution) -> Rows:
    """1 − Σ √(p q); at most 1."""
    return -torch.expm1(-bhattacharyya(p, q))


def hellinger(p: LogDistribution, q: LogDistribution) -> Rows:
    """√(1 − Σ √(p q)); 0 without a gradient where p and q cannot be told apart."""
    squared = squared_hellinger(p, q)
    apart = squared > torch.finfo(squared.dtype).eps
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def wasserstein(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ |cumulative p − cumulative q|: moving mass by one place in the vocabulary's order costs 1.

    The exact transport for that cost, and differentiable; the order of a vocabulary says little of meaning.
    """
    return (p.exp() - q.exp()).cumsum(-1).abs().sum(-1)


def chi_squared(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ q (p/q − 1)², held where it is still finite in its own type."""
    log_second_moment = (2 * p - q).logsumexp(-1)
    return torch.expm1(log_second_moment.clamp(max=0.9 * math.log(torch.finfo(p.dtype).max)))


DIVERGENCES: Mapping[str, Callable[..., Tensor]] = {
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "renyi": renyi,
    "bhattacharyya": bhattacharyya,
    "hellinger": hellinger,
    "squared_hellinger": squared_hellinger,
    "wasserstein": wasserstein,
    "chi_squared": chi_squared,
}
"""The measures by name; ``renyi`` takes an ``order``."""


def divergence(p: LogDistribution, q: LogDistribution, options: Mapping[str, float | str]) -> Rows:
    """The measure that ``options`` name, with their other arguments."""
    arguments = {name: value for name, value in options.items() if name not in ("measure", "detached")}
    return DIVERGENCES[str(options["measure"])](p, q, **arguments)
