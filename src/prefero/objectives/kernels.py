"""Kernels: how alike two embeddings are, as log K, so that differences of them are log-ratios.

Das et al., 2025, arXiv 2501.03271.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.quantities import Quantity

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
