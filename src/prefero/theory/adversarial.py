"""Offline preferences against an adversarial critic, solved exactly on finitely many responses.

Ji et al., 2024, arXiv 2406.04274 (SPAC): the critic fits the preferences, but is otherwise as pessimistic
about the policy's own responses as its bounds allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def critic_loss(
    critic: Float[Tensor, " response"],
    policy: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    weight: float,
) -> Float[Tensor, ""]:
    """E_{y∼π} f(y) + λ · the mean of −log σ(f(y_w) − f(y_l)) over the comparisons."""
    fit = -(wins * F.logsigmoid(critic[:, None] - critic)).sum() / wins.sum().clamp(min=1e-300)
    return policy @ critic + weight * fit


def adversarial_critic(
    policy: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    weight: float,
    bound: float,
    steps: int = 4000,
) -> Float[Tensor, " response"]:
    """The critic with values in [0, ``bound``] that has the smallest :func:`critic_loss`.

    ``wins[i, j]`` is how often i was preferred to j in the data, ``weight`` is λ. A response that was never
    compared gets 0. By accelerated projected gradient descent.
    """
    share = wins / wins.sum().clamp(min=1e-300)
    met = share + share.T
    # the curvature of a comparison is at most ¼, and a response's is coupled to those that it met
    rate = 1 / (weight * 0.5 * met.sum(1).max()).clamp(min=1e-12)
    here = ahead = torch.full_like(policy, bound / 2)
    for step in range(steps):
        wrong = share * torch.sigmoid(ahead - ahead[:, None])
        slope = policy + weight * (wrong.sum(0) - wrong.sum(1))
        following = (ahead - rate * slope).clamp(0, bound)
        moved = following - here
        ahead, here = following + step / (step + 3) * moved, following
        if float(moved.abs().max()) < 1e-13:
            break
    return here


@dataclass(frozen=True, slots=True)
class AdversarialPath:
    """The policies round by round, the first the reference; the critics that moved them; and the mixture of
    the policies, which the theory returns."""

    policies: Float[Tensor, "round response"]
    critics: Float[Tensor, "round response"]
    mixture: Float[Tensor, " response"]


def adversarial_path(
    reference: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    *,
    weight: float,
    eta: float,
    bound: float = 1.0,
    rounds: int = 10,
) -> AdversarialPath:
    """π ← π e^{η f} / Z with f the critic of π, round after round.

    ``eta`` is one over the β of the loss that stands for a round; the theory takes ``weight`` of the order of
    the root of the number of comparisons.
    """
    policies, critics = [reference], []
    for _ in range(rounds):
        critics.append(adversarial_critic(policies[-1], wins, weight, bound))
        policies.append((policies[-1].log() + eta * critics[-1]).softmax(-1))
    path = torch.stack(policies)
    return AdversarialPath(path, torch.stack(critics), path[1:].mean(0))
