"""What to ask next: which prompts and pairs are worth an annotator's time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError

PerPair = Float[Tensor, " pair"]
Passes = Float[Tensor, "pass response"]


def predictive_entropy(sampled_logps: Float[Tensor, "prompt sample"]) -> Float[Tensor, " prompt"]:
    """The policy's entropy on each prompt, in nats, from the summed log-probabilities of its own samples."""
    return -sampled_logps.mean(1)


def preference_uncertainty(first: PerPair, second: PerPair) -> PerPair:
    """1 − 2 |σ(r₁ − r₂) − ½| of two implicit rewards: 1 where they are equal, towards 0 where the model is
    certain.

    The published acquisition asks about the pairs that the model is *most* certain of, to correct confident
    mistakes. Muldrew et al., 2024, arXiv 2402.08114.
    """
    return 1 - 2 * (torch.sigmoid(first - second) - 0.5).abs()


def log_linear_preference(
    differences: Float[Tensor, "pair feature"],
    bias: PerPair,
    parameters: Float[Tensor, " feature"],
    beta: float = 1.0,
) -> PerPair:
    """μ = σ(β (φᵀθ − b)): how a log-linear policy with parameters θ prefers first responses.

    φ is the first response's features less the second's, b the reference's log-ratio of the two.
    """
    return torch.sigmoid(beta * (differences @ parameters - bias))


def log_linear_loss(
    differences: Float[Tensor, "pair feature"],
    bias: PerPair,
    parameters: Float[Tensor, " feature"],
    first_preferred: PerPair,
    beta: float = 1.0,
) -> Float[Tensor, ""]:
    """DPO's loss of a log-linear policy, summed over the pairs; labels are 1 or 0."""
    logits = beta * (differences @ parameters - bias)
    return F.binary_cross_entropy_with_logits(logits, first_preferred, reduction="sum")


@dataclass(frozen=True, slots=True)
class Design:
    """Pairs in the order in which they were chosen, what each added to the log-determinant, and its value."""

    order: list[int]
    gains: list[float]
    log_determinant: float


def d_optimal(
    differences: Float[Tensor, "pair feature"],
    preference: PerPair,
    count: int,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Design:
    """The pairs that tell most about a log-linear policy, chosen greedily by the log-determinant of the
    Hessian γ I + β² Σ μ (1 − μ) φ φᵀ (Kveton et al., 2025, arXiv 2503.01076).

    ``preference`` is μ at the current estimate of the policy. Every pair is taken once at most; the earlier
    of equals.

    Raises:
        PreferoError: ``gamma`` is not positive, there are fewer pairs than ``count``, or a pair's features or
            preference are no numbers.
    """
    if not gamma > 0:
        raise PreferoError(f"gamma is {gamma}; expected a positive regulariser.")
    if count > len(differences):
        raise PreferoError(f"{count} of {len(differences)} pairs cannot be chosen.")
    vectors = beta * (preference * (1 - preference)).sqrt()[:, None] * differences
    if not vectors.isfinite().all():
        wrong = int((~vectors.isfinite()).any(1).nonzero()[0]) + 1
        raise PreferoError(f"pair {wrong}: its features or its preference, 0 to 1, are no numbers.")
    features = differences.shape[1]
    inverse = torch.eye(features, dtype=differences.dtype, device=differences.device) / gamma
    total = torch.tensor(gamma, dtype=differences.dtype).log().item() * features
    left = torch.ones(len(vectors), dtype=torch.bool, device=differences.device)
    order, gains = list[int](), list[float]()
    for _ in range(count):
        informative = torch.einsum("pf,fg,pg->p", vectors, inverse, vectors)
        best = int(informative.masked_fill(~left, -torch.inf).argmax())
        left[best] = False
        order.append(best)
        gains.append(float(informative[best].log1p()))
        total += gains[-1]
        # Sherman and Morrison: the inverse after a rank-one update
        direction = inverse @ vectors[best]
        inverse = inverse - torch.outer(direction, direction) / (1 + informative[best])
    return Design(order, gains, total)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Optimistic and pessimistic values; an annotator helps most where they are far apart."""

    upper: Tensor
    lower: Tensor

    @property
    def acquisition(self) -> Tensor:
        """The best upper value less the best lower one, over the last axis: at least 0."""
        return self.upper.amax(-1) - self.lower.amax(-1)


def reward_bounds(
    logps: Float[Tensor, "pass *response"], reference: Float[Tensor, "*response"], kappa: float = 2.0
) -> Bounds:
    """m ± κ s − log π_ref, with mean m and (unbiased) deviation s of log π over passes with dropout.

    With the two responses of a pair on the last axis, :attr:`Bounds.acquisition` is AE-DPO's. Mehta et al.,
    2023, arXiv 2312.00267.
    """
    mean, spread = logps.mean(0), logps.std(0)
    return Bounds(mean + kappa * spread - reference, mean - kappa * spread - reference)


def borda_bounds(policy: Bounds, reference: Bounds, beta: float = 0.1) -> Bounds:
    """Bounds on how often each of the policy's samples beats the reference's samples to the same prompt.

    ``policy`` and ``reference`` are :func:`reward_bounds` of the two sets of samples. The sample with the
    highest upper bound is compared with a random one of the reference's.
    """
    won = torch.sigmoid(beta * (policy.upper[:, None] - reference.lower[None, :])).mean(1)
    lost = torch.sigmoid(beta * (policy.lower[:, None] - reference.upper[None, :])).mean(1)
    return Bounds(won, lost)
