"""Closed-form optima of regularised preference objectives, for one prompt with finitely many responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Divergence = Literal["reverse_kl", "forward_kl", "jsd", "alpha"]
"""The divergences that f-DPO takes."""


def reward_optimum(
    reference: Float[Tensor, " response"], reward: Float[Tensor, " response"], beta: float, alpha: float = 1.0
) -> Float[Tensor, " response"]:
    """The policy with the largest E[r] + αβ H(π) − β CE(π, π_ref): π_ref^{1/α} e^{r/(αβ)} / Z. α = 1 is
    DPO's: Rafailov et al., 2023, arXiv 2305.18290, eq. 4; other α: Omura et al., 2024, arXiv 2411.07595."""
    return ((reference.log() + reward / beta) / alpha).softmax(-1)


def psi_optimum(
    reference: Float[Tensor, " response"],
    preference: Float[Tensor, "response response"],
    opponent: Float[Tensor, " response"],
    tau: float,
    psi: Callable[[Tensor], Tensor] = lambda probability: probability,
) -> Float[Tensor, " response"]:
    """The optimum of ΨPO, π_ref(y) exp(E_{y′∼μ} Ψ(p(y ≻ y′)) / τ) / Z, where ``opponent`` is μ. Ψ = identity
    is IPO, Ψ = ``torch.logit`` is RLHF and DPO. Azar et al., 2023, arXiv 2310.12036."""
    return (reference.log() + psi(preference) @ opponent / tau).softmax(-1)


def reward_optimum_value(
    reference: Float[Tensor, " response"], reward: Float[Tensor, " response"], beta: float
) -> Float[Tensor, ""]:
    """max E[r] − β KL(π ‖ π_ref) = β log Σ π_ref e^{r/β}: the value V that DRO learns beside its policy
    (Richemond et al., 2024, arXiv 2405.19107)."""
    return beta * (reference.log() + reward / beta).logsumexp(-1)


def divergence(
    policy: Float[Tensor, " response"],
    reference: Float[Tensor, " response"],
    kind: Divergence = "reverse_kl",
    alpha: float = 0.5,
) -> Float[Tensor, ""]:
    """D_f(π ‖ π_ref) = Σ π_ref f(π/π_ref), in nats, for an f of f-DPO. ``jsd`` is twice the usual one;
    ``alpha`` in (0, 1) goes from reverse to forward KL. Wang et al., 2023, arXiv 2309.16240."""
    if kind == "reverse_kl":
        return kl(policy, reference)
    if kind == "forward_kl":
        return kl(reference, policy)
    if kind == "jsd":
        mean = (policy + reference) / 2
        return kl(policy, mean) + kl(reference, mean)
    overlap = (policy ** (1 - alpha) * reference**alpha).sum(-1)
    return (1 - overlap) / (alpha * (1 - alpha))


def kl(p: Float[Tensor, " response"], q: Float[Tensor, " response"]) -> Float[Tensor, ""]:
    """KL(p ‖ q) = Σ p log(p/q), in nats; what p leaves out costs nothing."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def divergence_optimum(
    reference: Float[Tensor, " response"],
    reward: Float[Tensor, " response"],
    beta: float,
    kind: Divergence = "reverse_kl",
    alpha: float = 0.5,
) -> Float[Tensor, " response"]:
    """The policy with the largest E[r] − β D_f(π ‖ π_ref), π = π_ref (f′)⁻¹((r − λ)/β), λ by bisection. Wang
    et al., 2023, arXiv 2309.16240 (f-DPO)."""
    if kind == "reverse_kl":
        return reward_optimum(reference, reward, beta)
    supported = torch.where(reference > 0, reward, -torch.inf)
    best = supported.argmax(-1)
    behind = (supported[best] - reward) / beta
    mass = reference[best]

    # f′ is bounded above; ratio(gap) is its inverse at that bound less the gap, so every gap is positive
    def ratio(gap: Tensor) -> Tensor:
        if kind == "forward_kl":
            return 1 / gap
        return 1 / gap.expm1() if kind == "jsd" else (alpha * gap) ** (-1 / alpha)

    def policy(gap_of_best: Tensor) -> Tensor:
        return torch.where(reference > 0, reference * ratio(behind.clamp(min=0) + gap_of_best), 0)

    # the best response alone has mass 1 at the low end; no ratio exceeds 1 at the high end
    if kind == "forward_kl":
        low, high = mass, torch.ones_like(mass)
    elif kind == "jsd":
        low, high = mass.log1p(), torch.ones_like(mass).log1p()
    else:
        low, high = mass**alpha / alpha, torch.ones_like(mass) / alpha
    for _ in range(200):
        middle = (low * high).sqrt()
        too_much = policy(middle).sum(-1) > 1
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    found = policy((low * high).sqrt())
    return found / found.sum(-1, keepdim=True)


def independent_pairs_optimum(
    reference: Float[Tensor, " response"],
    chosen: Float[Tensor, " response"],
    rejected: Float[Tensor, " response"],
    beta: float,
) -> Float[Tensor, " response"]:
    """The minimiser of DPO's expected loss when both sides are drawn on their own, ``chosen`` p and
    ``rejected`` q: π_ref (p/q)^{1/β} / Z. Gao et al., 2024, arXiv 2412.09243."""
    return (reference.log() + (chosen.log() - rejected.log()) / beta).softmax(-1)


def pmpo_optimum(
    reference: Float[Tensor, " response"],
    accepted: Float[Tensor, " response"],
    rejected: Float[Tensor, " response"],
    alpha: float,
    beta: float,
) -> Float[Tensor, " response"] | None:
    """The largest α E_acc[log π] − (1−α) E_rej[log π] − β KL(π_ref ‖ π): π ∝ β π_ref + α p_acc − (1−α) p_rej.
    None where that is not positive for a response of the reference: the objective then has no maximum.
    Abdolmaleki et al., 2024, arXiv 2410.04166."""
    weight = beta * reference + alpha * accepted - (1 - alpha) * rejected
    never = (reference == 0) & (rejected == 0)
    if not bool(((weight > 0) | never).all()):
        return None
    return weight / weight.sum(-1, keepdim=True)
