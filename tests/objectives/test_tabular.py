"""Fitted to a table, the objectives reach the optima that their papers promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prefero.objectives import Objective
from prefero.theory.distributions import fitted_policy
from prefero.theory.optima import psi_optimum, reward_optimum
from tests.objectives.batches import build

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([-0.3, 0.5, 0.1, 0.9], dtype=torch.float64)


def fitted(objective: Objective, win: Tensor, reference: Tensor) -> Tensor:
    return fitted_policy(objective, reference, win)


def bradley_terry(reward: Tensor) -> Tensor:
    return torch.sigmoid(reward[:, None] - reward)


def test_dpo_reaches_the_kl_regularised_optimum() -> None:
    policy = fitted(build("dpo", beta=0.5), bradley_terry(REWARD), REFERENCE)
    torch.testing.assert_close(policy, reward_optimum(REFERENCE, REWARD, 0.5), atol=1e-6, rtol=0)


def test_h_dpo_reaches_its_optimum_whose_entropy_grows_with_alpha() -> None:
    entropies = []
    for alpha in (0.8, 1.0, 1.2):
        policy = fitted(build("h_dpo", beta=0.5, alpha=alpha), bradley_terry(REWARD), REFERENCE)
        expected = reward_optimum(REFERENCE, REWARD, 0.5, alpha)
        torch.testing.assert_close(policy, expected, atol=1e-6, rtol=0)
        entropies.append(float(torch.special.entr(policy).sum()))
    assert entropies == sorted(entropies)


def test_ipo_reaches_the_optimum_of_psi_po_on_deterministic_preferences() -> None:
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    better = torch.tensor([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]], dtype=torch.float64)
    policy = fitted(build("ipo", tau=0.3, tokens="sum"), better, uniform)
    expected = torch.tensor([0.6957, 0.2290, 0.0754], dtype=torch.float64)
    torch.testing.assert_close(policy, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(policy, psi_optimum(uniform, better, uniform, 0.3), atol=1e-6, rtol=0)


def test_psi_of_the_logit_is_the_reward_optimum() -> None:
    """For Bradley–Terry preferences, whoever the opponent is."""
    opponent = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    policy = psi_optimum(REFERENCE, bradley_terry(REWARD), opponent, 0.5, torch.logit)
    torch.testing.assert_close(policy, reward_optimum(REFERENCE, REWARD, 0.5))


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": torch.log,
    "forward_kl": lambda v: -1 / v,
    "jsd": lambda v: (2 * v / (1 + v)).log(),
    "alpha": lambda v: (1 - v**-0.5) / 0.5,
}


@pytest.mark.parametrize("divergence", SLOPES)
def test_f_dpo_recovers_the_reward_differences(divergence: str) -> None:
    policy = fitted(build("f_dpo", beta=0.3, divergence=divergence), bradley_terry(REWARD), REFERENCE)
    rewards = 0.3 * SLOPES[divergence](policy / REFERENCE)
    torch.testing.assert_close(rewards - rewards[0], REWARD - REWARD[0], atol=1e-5, rtol=0)
