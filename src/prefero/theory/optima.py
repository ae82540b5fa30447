"""Closed-form optima of regularised preference objectives, for one prompt with finitely many responses."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


def reward_optimum(
    reference: Float[Tensor, " response"], reward: Float[Tensor, " response"], beta: float, alpha: float = 1.0
) -> Float[Tensor, " response"]:
    """The policy with the largest E[r] + αβ H(π) − β CE(π, π_ref): π_ref^{1/α} e^{r/(αβ)} / Z.

    α = 1 is E[r] − β KL(π ‖ π_ref), whose optimum DPO fits (Rafailov et al., 2023, arXiv 2305.18290, eq. 4);
    other α multiply the entropy (Omura et al., 2024, arXiv 2411.07595). ``reference`` are probabilities.
    """
    return ((reference.log() + reward / beta) / alpha).softmax(-1)


def psi_optimum(
    reference: Float[Tensor, " response"],
    preference: Float[Tensor, "response response"],
    opponent: Float[Tensor, " response"],
    tau: float,
    psi: Callable[[Tensor], Tensor] = lambda probability: probability,
) -> Float[Tensor, " response"]:
    """The optimum of ΨPO: π_ref(y) exp(E_{y′∼μ} Ψ(p(y ≻ y′)) / τ) / Z.

    ``preference[i, j]`` is the probability that i is preferred to j, ``opponent`` is μ. Ψ = identity is IPO,
    Ψ = ``torch.logit`` is RLHF and DPO. Azar et al., 2023, arXiv 2310.12036.
    """
    return (reference.log() + psi(preference) @ opponent / tau).softmax(-1)
