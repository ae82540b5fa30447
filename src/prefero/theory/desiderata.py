"""What a preference method should do between its preferences and its reference, on finite sets of responses.

Hu, He and Wipf, 2024, arXiv 2407.09072: with less and less regularisation the policy should become the one
that the preferences themselves imply, with more and more it should become the reference, and where the
reference already is what the preferences imply it should stay. DPO and its relatives with quasi-convex losses
cannot do all three; with little regularisation they reach the best response alone.
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


def bradley_terry_policy(preference: Float[Tensor, "response response"]) -> Float[Tensor, " response"]:
    """The policy whose own odds are the preferences': π(i) / (π(i) + π(j)) = p(i ≻ j), π ∝ e^r.

    ``preference[i, j]`` is p(i ≻ j) in (0, 1), of a Bradley–Terry model; other preferences give the closest
    one in log-odds.
    """
    return torch.logit(preference).mean(1).softmax(0)


def fitted_policy(
    objective: Objective,
    reference: Float[Tensor, " response"],
    preference: Float[Tensor, "response response"],
) -> Float[Tensor, " response"]:
    """The softmax policy with the smallest expected loss, by L-BFGS from the reference.

    Pairs of different responses are all as likely, the winner is drawn from ``preference``, and a third
    response with the role ``sample`` from the reference, for objectives that read one.
    """
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
    """Total variations, 0 where a method has what is asked: ``from_preferences`` with the least
    regularisation, ``from_reference`` with the most, and ``unpreserved``, how far it goes at worst from a
    reference that is already right."""

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
