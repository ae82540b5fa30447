"""DPO Kernels: what a response means, beside how likely it is. A kernel says how alike two embeddings are, as
log K, so that differences of kernels are log-ratios.

Das et al., 2025, arXiv 2501.03271.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import LastToken, Logp, Measured, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import PROMPT_STATE, STATE, divergence as divergence_from

Embeddings = Float[Tensor, "*rows hidden"]
LogKernel = Float[Tensor, "*rows"]


class Kernel(nn.Module):
    """A pair of embeddings in, log K out."""

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        raise NotImplementedError


class Polynomial(Kernel):
    """(e·e′ + c)^degree; a base below 1e-12 is held there."""

    def __init__(self, degree: float = 2.0, c: float = 1.0) -> None:
        super().__init__()
        self.degree, self.c = degree, c

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        return self.degree * ((first * second).sum(-1) + self.c).clamp(min=1e-12).log()


class RadialBasis(Kernel):
    """exp(−‖e − e′‖² / (2σ²))."""

    def __init__(self, sigma: float = 0.5) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        return -(first - second).square().sum(-1) / (2 * self.sigma**2)


class Spectral(Kernel):
    """Σ_k λ_k exp(−α_k ‖e − e′‖²): radial bases of several widths, λ and α above 0."""

    def __init__(self, scales: Sequence[float], rates: Sequence[float]) -> None:
        super().__init__()
        self.scales, self.rates = tuple(scales), tuple(rates)

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        distance = (first - second).square().sum(-1, keepdim=True)
        scales, rates = distance.new_tensor(self.scales), distance.new_tensor(self.rates)
        return (scales.log() - rates * distance).logsumexp(-1)


class Mahalanobis(Kernel):
    """exp(−½ (e − e′)ᵀ Σ⁻¹ (e − e′)); ``precision`` is Σ⁻¹, its diagonal, or 1 on all of it."""

    precision: Tensor | None

    def __init__(self, precision: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("precision", precision, persistent=False)

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        difference = first - second
        if self.precision is None:
            return -difference.square().sum(-1) / 2
        precision = self.precision.to(difference)
        spread = difference * precision if precision.dim() == 1 else difference @ precision
        return -(spread * difference).sum(-1) / 2


class Mixture(Kernel):
    """The hierarchical mixture: τ₁ (λ₁ K_rbf + λ₂ K_poly) + τ₂ (λ₃ K_spectral + λ₄ K_mahalanobis).

    Each pair of weights is a softmax of learned logits, which start at 0: ½ and ½.
    """

    def __init__(self, rbf: Kernel, polynomial: Kernel, spectral: Kernel, mahalanobis: Kernel) -> None:
        super().__init__()
        self.kernels = nn.ModuleList([rbf, polynomial, spectral, mahalanobis])
        self.local_logits = nn.Parameter(torch.zeros(2))
        self.global_logits = nn.Parameter(torch.zeros(2))
        self.top_logits = nn.Parameter(torch.zeros(2))

    def log_weights(self) -> Float[Tensor, "4"]:
        """log τ_i λ_j of the four kernels."""
        within = torch.stack([self.local_logits, self.global_logits]).log_softmax(-1)
        return (self.top_logits.log_softmax(-1)[:, None] + within).flatten()

    def forward(self, first: Embeddings, second: Embeddings) -> LogKernel:
        values = torch.stack([kernel(first, second) for kernel in self.kernels], -1)
        return (values + self.log_weights().to(values)).logsumexp(-1)


class MixtureEntropy(Quantity):
    """−Σ w log w of a mixture's weights: the same number for every response."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        log_weights = self.mixture.log_weights().to(batch.lengths)
        return -(log_weights.exp() * log_weights).sum()


class Similarity(Quantity):
    """log K of two embeddings of each response, scaled to length 1."""

    def __init__(self, kernel: Kernel, first: Quantity, second: Quantity) -> None:
        super().__init__()
        self.kernel, self.first, self.second = kernel, first, second

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        first, second = (
            F.normalize(of(batch).to(batch.lengths.dtype), dim=-1) for of in (self.first, self.second)
        )
        return self.kernel(first, second)


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
    closeness = gamma * Similarity(chosen_kernel, Measured(PROMPT_STATE, encoder), Measured(STATE, encoder))
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
