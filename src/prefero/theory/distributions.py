"""Policies as distributions over finitely many responses of one prompt. All policies need full support.

Differential information turns the reference into the policy: Won et al., 2025, arXiv 2505.23761. Desiderata
of a preference method: Hu, He and Wipf, 2024, arXiv 2407.09072. With less and less regularisation the policy
should become the one that the preferences imply, with more and more the reference, and where the two agree it
should stay. DPO and its relatives with quasi-convex losses cannot do all three.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective


def differential_information(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"]
) -> Float[Tensor, " response"]:
    """(π/π_ref) / Σ (π/π_ref): the evidence by which Bayes' rule turns the reference into the policy."""
    return (policy.log() - reference.log()).softmax(-1)


def information_entropy(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"]
) -> Float[Tensor, ""]:
    """Entropy of the differential information, in nats: low where the policy reinforces few responses, log n
    where policy and reference are equal."""
    return torch.special.entr(differential_information(policy, reference)).sum(-1)


def optimal_rejected(
    policy: Float[Tensor, " response"], reference: Float[Tensor, " response"], beta: float
) -> Float[Tensor, " response"]:
    """π_ref (π_ref/π)^β / Z: where rejected responses should come from, if chosen ones come from the
    reference, for DPO to reach π. Its differential information is the β-th power of the policy's."""
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
    self-normalised importance sampling: log Z − E_q[log π/π_ref], weights (π/π_ref)/proposal. The variance is
    high for whole texts: look at the effective number of samples."""
    ratio = policy_logps - reference_logps
    log_weight = ratio - proposal_logps
    weight = log_weight.softmax(-1)
    log_z = log_weight.logsumexp(-1) - torch.tensor(float(len(ratio)), dtype=ratio.dtype).log()
    entropy = log_z - (weight * ratio).sum(-1)
    return EntropyEstimate(float(entropy), float(1 / weight.square().sum()))


def bradley_terry_policy(preference: Float[Tensor, "response response"]) -> Float[Tensor, " response"]:
    """The policy whose own odds are the preferences', π ∝ e^r, where ``preference[i, j]`` is p(i ≻ j) in (0,
    1); without Bradley and Terry's model the closest one in log-odds."""
    return torch.logit(preference).mean(1).softmax(0)


def fitted_policy(
    objective: Objective,
    reference: Float[Tensor, " response"],
    preference: Float[Tensor, "response response"],
) -> Float[Tensor, " response"]:
    """The softmax policy with the smallest expected loss over all ordered pairs, by L-BFGS from the
    reference, from which a third response (role ``sample``) is drawn; the winner is drawn from
    ``preference``."""
    count = len(reference)
    pairs = list(itertools.permutations(range(count), 2))
    rows = torch.tensor([(*pair, sample) for pair in pairs for sample in range(count)])
    weight = preference[rows[:, 0], rows[:, 1]] * reference[rows[:, 2]] / (len(pairs) / 2)
    logits = reference.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=100, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def of(log_p: Tensor) -> TokenLogps:
        logps = log_p[rows][..., None]
        return TokenLogps(logps, torch.ones_like(logps, dtype=torch.bool))

    def closure() -> Tensor:
        optimizer.zero_grad()
        models = {"policy": of(logits.log_softmax(0)), "reference": of(reference.log())}
        terms = objective(PreferenceBatch(models, roles=("chosen", "rejected", "sample")))
        values = [term.values for term in terms if term.values is not None]
        loss = (weight * torch.stack(values).sum(0)).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    return logits.detach().softmax(0)


@dataclass(frozen=True, slots=True)
class Desiderata:
    """Total variations: ``from_preferences`` with the least regularisation, ``from_reference`` with the most,
    and ``unpreserved``, the largest from a reference that is already right."""

    from_preferences: float
    from_reference: float
    unpreserved: float


def desiderata(
    family: Callable[[float], Objective],
    strengths: Sequence[float],
    reference: Float[Tensor, " response"],
    preference: Float[Tensor, "response response"],
) -> Desiderata:
    """How a method fares, ``family`` building it for every regularisation strength, weakest first."""
    right = bradley_terry_policy(preference)
    weakest, strongest = (
        fitted_policy(family(strengths[end]), reference, preference) for end in (0, len(strengths) - 1)
    )
    kept = [fitted_policy(family(strength), right, preference) for strength in strengths]
    return Desiderata(
        from_preferences=total_variation(weakest, right),
        from_reference=total_variation(strongest, reference),
        unpreserved=max(total_variation(policy, right) for policy in kept),
    )


def total_variation(p: Float[Tensor, " response"], q: Float[Tensor, " response"]) -> float:
    """½ Σ |p − q|."""
    return float((p - q).abs().sum() / 2)
