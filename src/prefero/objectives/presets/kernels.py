"""DPO Kernels: what a response means, beside how likely it is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.heads import State
from prefero.objectives.kernels import (
    Kernel,
    Mahalanobis,
    Mixture,
    MixtureEntropy,
    Polynomial,
    RadialBasis,
    Similarity,
    Spectral,
)
from prefero.objectives.quantities import LastToken, Logp, Measured, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import PROMPT_STATE, STATE, divergence as divergence_from

KernelName = Literal["mixture", "rbf", "polynomial", "spectral", "mahalanobis"]
Divergence = Literal[
    "kl",
    "jensen_shannon",
    "renyi",
    "bhattacharyya",
    "hellinger",
    "squared_hellinger",
    "wasserstein",
    "chi_squared",
]


@published(
    title="DPO Kernels",
    paper="p097",
    citation="Das et al., 2025, arXiv 2501.03271",
    equation=(
        "−log σ(β (h + γκ)) + α D(π ‖ π_ref), κ = log K(e_x, e_w) − log K(e_x, e_l); published without σ: "
        "−k (log π(y_w) − log π(y_l) + γκ) + α D"
    ),
    feedback={"pairs"},
    relatives=(
        "link: linear is the published form, unbounded below, where the reference is in D alone; sigmoid is "
        "the stable one. e are states of the reference (or the policy: encoder) at the last token of the "
        "prompt and of the response, of length 1; the paper embeds the texts with a sentence encoder. D is "
        "that of the next-token distributions at the last chosen token, as in the authors' scripts, or the "
        "mean over the chosen tokens (at: mean). β is DPO's, for lack of a published one; 1 for k, α, γ, ½ "
        "for σ and 0.9 for Rényi's order are the scripts'; the entropy's weight and the spectral and "
        "polynomial settings are a suggestion."
    ),
    equals=(Equal("dpo", at={"gamma": 0.0, "alpha": 0.0, "entropy": 0.0}),),
    pitfalls=(
        "With a frozen encoder and one fixed kernel, κ is a constant of each pair: in the linear form it "
        "changes nothing, with σ it is a margin. A mixture whose weights are learned drifts to the kernel "
        "with the largest κ unless entropy holds it."
    ),
)
def dpo_kernels(
    beta: Positive = 0.1,
    gamma: NonNegative = 1.0,
    alpha: NonNegative = 1.0,
    kernel: KernelName = "mixture",
    divergence: Divergence = "kl",
    link: Literal["sigmoid", "linear"] = "sigmoid",
    k: NonNegative = 1.0,
    encoder: Literal["reference", "policy"] = "reference",
    at: Literal["last", "mean"] = "last",
    entropy: NonNegative = 0.01,
    sigma: Positive = 0.5,
    degree: Positive = 2.0,
    c: NonNegative = 1.0,
    scales: list[Positive] | None = None,
    rates: list[Positive] | None = None,
    precision: list[Positive] | None = None,
    order: Positive = 0.9,
) -> Objective:
    """DPO whose reward also knows how close the response is to the prompt, in a kernel of their embeddings.

    ``scales`` and ``rates`` are λ and α of the spectral kernel (1 and ½; 1 and 0.1), ``precision`` the
    diagonal of the Mahalanobis kernel's Σ⁻¹ (1). ``kernel: mixture`` learns the weights of all four;
    ``entropy`` is added times that of the weights, to keep them apart from 0.
    """
    scales, rates = scales or [1.0, 0.5], rates or [1.0, 0.1]
    if len(scales) != len(rates):
        raise PreferoError(
            f"scales and rates of dpo_kernels are one of each for every term, but there are {len(scales)} "
            f"scales and {len(rates)} rates"
        )
    kernels: dict[str, Kernel] = {
        "rbf": RadialBasis(sigma),
        "polynomial": Polynomial(degree, c),
        "spectral": Spectral(scales, rates),
        "mahalanobis": Mahalanobis(None if precision is None else torch.tensor(precision)),
    }
    chosen_kernel = kernels[kernel] if kernel != "mixture" else Mixture(*kernels.values())
    closeness = gamma * Similarity(chosen_kernel, State(PROMPT_STATE, encoder), State(STATE, encoder))
    if link == "sigmoid":
        objective: Objective = Compare(beta * (log_ratio().sum() + closeness))
    else:
        objective = Compare(k * (Logp().sum() + closeness), link=negated)
    if alpha:
        signal = (
            divergence_from("renyi", order=order) if divergence == "renyi" else divergence_from(divergence)
        )
        apart = Measured(signal)
        objective = objective + alpha * penalty(apart.mean() if at == "mean" else LastToken(apart), "chosen")
    if isinstance(chosen_kernel, Mixture):
        objective = objective + entropy * penalty(-MixtureEntropy(chosen_kernel), "chosen")
    return objective


def negated(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """−z: the margin itself is maximised, without an end."""
    return -margins
