"""A pair's loss as a function of two likelihood ratios or of probabilities, and its gradient.

x₁ = π(y_w)/π_ref(y_w) and x₂ = π(y_l)/π_ref(y_l) are independent coordinates here: no normalisation, no
shared parameters. Feng et al., 2024, arXiv 2404.04626.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.needs import dry_run


def probability_slopes(
    objective: Objective,
    policy: Float[Tensor, "example response"],
    reference: Float[Tensor, "example response"],
    roles: tuple[str, ...] = ("chosen", "rejected"),
) -> Float[Tensor, "example response"]:
    """∂ℓ/∂π(y) of each example's own loss, for responses of one token with the probabilities ``policy``.

    For DPO these are −βσ(−βh)/π(y_w) and βσ(−βh)/π(y_l): as the rejected response becomes unlikely, it falls
    ever faster while the chosen one no longer moves. In the logits of a softmax a factor π(1 − π)
    compensates. Yan et al., 2024, arXiv 2406.07327.
    """
    probabilities = policy.detach().clone().requires_grad_()
    there = torch.ones((*policy.shape, 1), dtype=torch.bool, device=policy.device)
    models = {
        "policy": TokenLogps(probabilities.log()[..., None], there),
        "reference": TokenLogps(reference.log()[..., None], there),
    }
    loss = objective.loss(PreferenceBatch(models, roles=roles))
    (slope,) = torch.autograd.grad(loss, probabilities)
    return slope * len(policy)


@dataclass(frozen=True, slots=True)
class Field:
    """The loss at each point and its slopes with respect to the ratios (not their logarithms).
    ``speed_ratio`` is below 1 where a step lowers the rejected ratio more than it raises the chosen one."""

    loss: Float[Tensor, " *point"]
    slope_chosen: Float[Tensor, " *point"]
    slope_rejected: Float[Tensor, " *point"]
    speed_ratio: Float[Tensor, " *point"]


def dpo_field(chosen: Float[Tensor, " *point"], rejected: Float[Tensor, " *point"], beta: float) -> Field:
    """DPO's field at the **log**-ratios ``chosen`` and ``rejected``: −log(x₁^β/(x₁^β + x₂^β)), slopes −β σ(−β
    log(x₁/x₂))/x₁ and β σ(−β log(x₁/x₂))/x₂, speed ratio x₂/x₁."""
    margin = beta * (chosen - rejected)
    pull = F.logsigmoid(-margin)
    return Field(
        -F.logsigmoid(margin),
        -beta * (pull - chosen).exp(),
        beta * (pull - rejected).exp(),
        (rejected - chosen).exp(),
    )


def field_of(
    objective: Objective,
    chosen: Float[Tensor, " *point"],
    rejected: Float[Tensor, " *point"],
    *,
    tokens: int = 1,
    reference: float = -1.0,
) -> Field:
    """The field of any method of pairs where the two **log**-ratios are ``chosen`` and ``rejected``.

    Both responses have so many ``tokens``, each with the log-probability ``reference`` under the reference
    and an equal share of the log-ratio; slopes are of moves that keep the shares equal. For methods without a
    reference, the ratios are to such a response.

    Raises:
        PreferoError: the method reads more than two responses' log-probabilities, or compares examples.
    """
    needs = dry_run(objective)
    if (
        set(needs.roles) != {"chosen", "rejected"}
        or not set(needs.models) <= {"policy", "reference"}
        or any(needs.models.values())
        or needs.columns
        or needs.views
        or not needs.exact
    ):
        raise PreferoError(
            f"a field needs a method of the chosen and rejected log-probabilities of policy and reference "
            f"alone, pair by pair; {objective.key or type(objective).__name__} reads more"
        )
    chosen, rejected = torch.broadcast_tensors(chosen.double(), rejected.double())
    ratios = torch.stack([chosen.flatten(), rejected.flatten()], 1).requires_grad_()
    fixed = torch.full((*ratios.shape, tokens), reference, dtype=torch.float64)
    mask = torch.ones_like(fixed, dtype=torch.bool)
    models = {
        "policy": TokenLogps(fixed + ratios[..., None] / tokens, mask),
        "reference": TokenLogps(fixed, mask),
    }
    terms = objective.double().eval()(PreferenceBatch(models))
    losses = torch.zeros(len(ratios), dtype=torch.float64)
    for term in terms:
        assert term.values is not None, "what is exact pair by pair has a value for each"
        losses = losses + term.values * (len(ratios) / term.count)
    (slopes,) = torch.autograd.grad(losses.sum(), ratios)
    first, second = (slopes * (-ratios.detach()).exp()).reshape(*chosen.shape, 2).unbind(-1)
    return Field(losses.detach().reshape(chosen.shape), first, second, first.abs() / second.abs())


def descent(
    chosen: float, rejected: float, beta: float, learning_rate: float, steps: int
) -> Float[Tensor, "step 2"]:
    """Gradient descent on the two **ratios**, held above 0, from a point: the path. With a small learning
    rate it keeps x₁² + x₂²: the chosen ratio stays below its root while the rejected one is driven to 0."""
    tiny = torch.finfo(torch.float64).tiny
    path = [torch.tensor([chosen, rejected], dtype=torch.float64)]
    for _ in range(steps):
        first, second = path[-1].log()
        here = dpo_field(first, second, beta)
        step = learning_rate * torch.stack([here.slope_chosen, here.slope_rejected])
        path.append((path[-1] - step).clamp(min=tiny))
    return torch.stack(path)
