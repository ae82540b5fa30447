"""What turns the reference into a policy, as a distribution: the differential information of a pair of
policies, for one prompt with finitely many responses.

Won et al., 2025, arXiv 2505.23761. All policies need full support.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def differential_information(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"]
) -> Float[Tensor, " response"]:
    """(π/π_ref) / Σ (π/π_ref): the evidence by which Bayes' rule turns the reference into the policy."""
    return (policy.log() - reference.log()).softmax(-1)


def information_entropy(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"]
) -> Float[Tensor, ""]:
    """Entropy of the differential information, in nats.

    Low where the policy reinforces few responses, high where it smooths; log n where policy and reference
    are equal.
    """
    return torch.special.entr(differential_information(policy, reference)).sum(-1)


def optimal_rejected(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"], beta: float
) -> Float[Tensor, " response"]:
    """π_ref (π_ref/π)^β / Z: where rejected responses should come from so that DPO with this β reaches π.

    Chosen responses come from the reference. Then the differential information of the reference over the
    rejected distribution is the β-th power of that of the policy over the reference.
    """
    return ((1 + beta) * reference.log() - beta * policy.log()).softmax(-1)


def information_power(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"], beta: float
) -> Float[Tensor, " response"]:
    """The differential information to the power β, normalised."""
    return (beta * (policy.log() - reference.log())).softmax(-1)


def information_preference(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"], beta: float
) -> Float[Tensor, "response response"]:
    """σ(β [log π/π_ref(i) − log π/π_ref(j)]): how often i is preferred to j, if preferences encode what turns
    the reference into the policy."""
    reward = beta * (policy.log() - reference.log())
    return torch.sigmoid(reward[:, None] - reward)


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """The least-squares line through (log π/π_ref, log π_ref/π_l): its slope estimates β, and ``r_squared``
    says whether there is a power law at all."""

    slope: float
    r_squared: float


def power_law(
    policy: Float[Tensor, " response"],
    reference: Float[Tensor, " response"],
    rejected: Float[Tensor, " response"],
) -> PowerLaw:
    """How well the rejected distribution follows :func:`optimal_rejected`, and with which β."""
    x = policy.log() - reference.log()
    y = reference.log() - rejected.log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / x.square().sum()
    unexplained = (y - slope * x).square().sum() / y.square().sum()
    return PowerLaw(float(slope), float(1 - unexplained))


@dataclass(frozen=True, slots=True)
class EntropyEstimate:
    """An entropy in nats, and how many independent samples it is worth."""

    entropy: float
    effective_samples: float


def estimated_information_entropy(
    policy_logps: Float[Tensor, " sample"],
    reference_logps: Float[Tensor, " sample"],
    proposal_logps: Float[Tensor, " sample"],
) -> EntropyEstimate:
    """:func:`information_entropy` from responses drawn from a proposal (policy or reference), by
    self-normalised importance sampling.

    log Z − E_q[log π/π_ref] with weights (π/π_ref)/proposal. The variance is high for whole texts: look at
    the effective number of samples.
    """
    ratio = policy_logps - reference_logps
    log_weight = ratio - proposal_logps
    weight = log_weight.softmax(-1)
    log_z = log_weight.logsumexp(-1) - torch.tensor(float(len(ratio)), dtype=ratio.dtype).log()
    entropy = log_z - (weight * ratio).sum(-1)
    return EntropyEstimate(float(entropy), float(1 / weight.square().sum()))
