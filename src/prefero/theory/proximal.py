"""Iterated preference optimisation as a proximal method, with Nesterov's extrapolation between rounds.

He et al., 2024, arXiv 2410.06293 (accelerated preference optimisation).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """Log-probabilities, and the log of what normalised them."""

    logps: Float[Tensor, "*prompt response"]
    log_z: Float[Tensor, " *prompt"]


def extrapolate(
    following: Float[Tensor, "*prompt response"], current: Float[Tensor, "*prompt response"], alpha: float
) -> Extrapolated:
    """π̂₊ (π̂₊/π̂)^α / Z from the logits of two successive policies before extrapolation.

    ``current`` is the previous round's policy before its own extrapolation, not the one after. Between
    log-linear policies this is the same as :func:`extrapolate_parameters`.
    """
    following, current = following.log_softmax(-1), current.log_softmax(-1)
    combined = following + alpha * (following - current)
    log_z = combined.logsumexp(-1)
    return Extrapolated(combined - log_z[..., None], log_z)


def extrapolate_parameters(following: Tensor, current: Tensor, alpha: float) -> Tensor:
    """θ̂₊ + α (θ̂₊ − θ̂), for the parameters of a network.

    Of adapters, extrapolate the merged weights: a combination of low-rank factors is not that of their
    products.
    """
    return following + alpha * (following - current)


@dataclass(frozen=True, slots=True)
class ProximalPath:
    """The policies round by round, the first the reference; every policy is π_ref e^{c r/β} / Z with c its
    reward coefficient. ``before`` are the policies before extrapolation."""

    policies: Float[Tensor, "round response"]
    before: Float[Tensor, "round response"]
    coefficients: Float[Tensor, " round"]
    coefficients_before: Float[Tensor, " round"]


def proximal_path(
    reference: Float[Tensor, " response"],
    reward: Float[Tensor, " response"],
    beta: float,
    rounds: int,
    alpha: float = 0.0,
) -> ProximalPath:
    """Exact rounds: π̂₊ ∝ π e^{r/β}, then the extrapolation π₊ ∝ π̂₊ (π̂₊/π̂)^α.

    ``alpha`` = 0 is iterated DPO, whose coefficient grows by 1 a round; with momentum its increments tend to
    1/(1 − α).
    """
    extrapolated, plain = [0.0], [0.0]
    for _ in range(rounds):
        plain.append(extrapolated[-1] + 1.0)
        extrapolated.append(plain[-1] + alpha * (plain[-1] - plain[-2]))
    after, before = (reward.new_tensor(coefficients) for coefficients in (extrapolated, plain))

    def policies(coefficients: Tensor) -> Tensor:
        return (reference.log() + coefficients[:, None] * reward / beta).softmax(-1)

    return ProximalPath(policies(after), policies(before), after, before)
