"""Risk measures of the log-ratio of two next-token distributions, one number a position.

With q the second model's distribution and p the model's, they judge x = log q − log p as a random variable
under q, whose mean is KL(q ‖ p). Which part of the vocabulary counts has no gradient. Zhang et al., 2025,
arXiv 2505.20359, take such measures token by token (nested).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LogProbabilities = Float[Tensor, "*position vocabulary"]


def released_cvar(
    logp: LogProbabilities, other: LogProbabilities, confidence: float, split: bool
) -> Float[Tensor, "*position"]:
    """Σ q x over the vocabulary entries whose x exceeds the (1 − confidence) quantile of x.

    This is what the code of Zhang et al. computes: the quantile counts every entry once, whatever its
    probability, and interpolates; the entry at the quantile is left out, and nothing is renormalised.
    ``split`` does the same for the first half of the vocabulary and for the rest, and adds.
    """
    if split:
        half = logp.shape[-1] // 2
        parts = zip(
            logp.split([half, logp.shape[-1] - half], -1),
            other.split([half, logp.shape[-1] - half], -1),
            strict=True,
        )
        return sum((released_cvar(*part, confidence, split=False) for part in parts), logp.new_zeros(()))
    if not logp.shape[-1]:
        return logp.sum(-1)
    ratio = other - logp
    return torch.where(ratio > _quantile(ratio.detach(), 1 - confidence), other.exp() * ratio, 0).sum(-1)


def _quantile(values: Tensor, share: float) -> Float[Tensor, "*position 1"]:
    """The quantile along the last axis, interpolated; ``torch.quantile`` refuses large vocabularies."""
    place = share * (values.shape[-1] - 1)
    # kthvalue finds two of them faster, but refuses to run deterministically
    ordered = values.sort(-1).values
    low, high = ordered[..., [math.floor(place)]], ordered[..., [math.ceil(place)]]
    return low.lerp(high, place - math.floor(place))


def cvar(logp: LogProbabilities, other: LogProbabilities, tail: float) -> Float[Tensor, "*position"]:
    """The mean of x over the worst ``tail`` of q's probability: where p falls short of q most. At 1 it is
    KL(q ‖ p)."""
    ratio = other - logp
    order = ratio.detach().argsort(-1, descending=True)
    mass = other.exp().gather(-1, order)
    before = mass.cumsum(-1) - mass
    kept = torch.minimum(mass, (tail - before).clamp(min=0))
    return (kept * ratio.gather(-1, order)).sum(-1) / tail


def entropic(logp: LogProbabilities, other: LogProbabilities, mu: float) -> Float[Tensor, "*position"]:
    """(1/μ) log Σ q e^{μ x}: KL(q ‖ p) as μ → 0, growing with μ; the Rényi divergence of order 2 at μ = 1."""
    return (other + mu * (other - logp)).logsumexp(-1) / mu


def nested_risk(
    logp: LogProbabilities, other: LogProbabilities, options: Mapping[str, float | str]
) -> Float[Tensor, "*position"]:
    """The measure that a signal's options name."""
    if options["measure"] == "cvar":
        return cvar(logp, other, float(options["tail"]))
    if options["measure"] == "entropic":
        return entropic(logp, other, float(options["mu"]))
    return released_cvar(logp, other, float(options["confidence"]), bool(options["split"]))
