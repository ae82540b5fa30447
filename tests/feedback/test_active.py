"""What to ask next."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.feedback.active import (
    borda_bounds,
    d_optimal,
    log_linear_loss,
    log_linear_preference,
    predictive_entropy,
    preference_uncertainty,
    reward_bounds,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_uncertainty_is_one_only_between_equal_rewards_and_symmetric() -> None:
    first, second = normal(20), normal(20, seed=1)
    score = preference_uncertainty(first, second)
    torch.testing.assert_close(score, preference_uncertainty(second, first))
    assert float(preference_uncertainty(first, first).min()) == 1
    assert torch.equal(score.argsort(), (first - second).abs().argsort(descending=True))


def test_a_certain_policy_has_no_entropy_and_a_uniform_one_all() -> None:
    assert float(predictive_entropy(torch.zeros(1, 5))) == 0
    uniform = torch.full((1, 8), -math.log(7))
    assert float(predictive_entropy(uniform)) == pytest.approx(math.log(7))


def chosen_directly(
    differences: Tensor, preference: Tensor, count: int, beta: float, gamma: float
) -> list[int]:
    """By the log-determinants themselves."""
    vectors = beta * (preference * (1 - preference)).sqrt()[:, None] * differences
    hessian, order = gamma * torch.eye(differences.shape[1], dtype=torch.float64), []
    for _ in range(count):
        left = [i for i in range(len(vectors)) if i not in order]
        best = max(left, key=lambda i: float(torch.logdet(hessian + torch.outer(vectors[i], vectors[i]))))
        hessian = hessian + torch.outer(vectors[best], vectors[best])
        order.append(best)
    return order


def test_updating_the_inverse_is_the_same_as_computing_determinants() -> None:
    differences, bias, estimate = normal(12, 4), normal(12, seed=1), normal(4, seed=2)
    mu = log_linear_preference(differences, bias, estimate, 1.5)
    design = d_optimal(differences, mu, 8, beta=1.5, gamma=0.3)
    assert design.order == chosen_directly(differences, mu, 8, 1.5, 0.3)
    weights = 1.5**2 * (mu * (1 - mu))[design.order]
    hessian = 0.3 * torch.eye(4) + (differences[design.order].T * weights) @ differences[design.order]
    assert design.log_determinant == pytest.approx(float(torch.logdet(hessian)))
    assert len(set(design.order)) == 8


def test_a_feature_seen_once_tells_less_the_second_time() -> None:
    differences = torch.tensor([[3.0, 0.0], [2.9, 0.0], [0.0, 1.5]], dtype=torch.float64)
    design = d_optimal(differences, torch.full((3,), 0.5, dtype=torch.float64), 3, gamma=0.5)
    assert design.order == [0, 2, 1]
    assert d_optimal(-differences, torch.full((3,), 0.5).double(), 3, gamma=0.5).order == [0, 2, 1]


def test_the_design_is_that_of_the_losses_hessian() -> None:
    differences, bias, estimate = normal(9, 3), normal(9, seed=1), normal(3, seed=2)
    labels, beta = (normal(9, seed=3) > 0).double(), 0.7

    def loss(parameters: Tensor) -> Tensor:
        return log_linear_loss(differences, bias, parameters, labels, beta)

    mu = log_linear_preference(differences, bias, estimate, beta)
    hessian = beta**2 * (differences.T * (mu * (1 - mu))) @ differences
    torch.testing.assert_close(torch.func.hessian(loss)(estimate), hessian)


def test_a_design_of_more_pairs_than_there_are_is_refused() -> None:
    with pytest.raises(PreferoError, match="5 of 2 pairs"):
        d_optimal(normal(2, 3), torch.full((2,), 0.5).double(), 5)
    with pytest.raises(PreferoError, match="gamma is 0"):
        d_optimal(normal(2, 3), torch.full((2,), 0.5).double(), 1, gamma=0.0)


def test_without_dropout_nothing_is_worth_asking() -> None:
    passes = normal(1, 6, 2).expand(5, -1, -1)
    assert torch.equal(reward_bounds(passes, normal(6, 2, seed=1)).acquisition, torch.zeros(6).double())


def test_acquisition_takes_the_better_response_before_the_difference() -> None:
    """A dominating response decides both bounds; per-response widths would take the wider one."""
    spread = torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None, None]
    mean, width = torch.tensor([[50.0, 0.0]]).double(), torch.tensor([[1.0, 8.0]]).double()
    bounds = reward_bounds(mean + spread * width, torch.zeros(1, 2).double(), kappa=2.0)
    deviation = math.sqrt(2)
    assert float(bounds.acquisition) == pytest.approx(2 * 2.0 * deviation)


def test_acquisition_ignores_shared_constants_and_the_order_of_the_two() -> None:
    passes, reference = normal(5, 7, 2), normal(7, 2, seed=1)
    plain = reward_bounds(passes, reference).acquisition
    assert (plain >= 0).all()
    torch.testing.assert_close(reward_bounds(passes + 3, reference + 3).acquisition, plain)
    torch.testing.assert_close(reward_bounds(passes.flip(-1), reference.flip(-1)).acquisition, plain)


def test_borda_bounds_are_probabilities_that_tend_to_even() -> None:
    policy = reward_bounds(normal(5, 4), normal(4, seed=1))
    reference = reward_bounds(normal(5, 3, seed=2), normal(3, seed=3))
    bounds = borda_bounds(policy, reference, beta=0.5)
    assert (bounds.upper >= bounds.lower).all()
    assert ((bounds.upper < 1) & (bounds.lower > 0)).all()
    assert borda_bounds(policy, reference, beta=1e-9).upper.tolist() == pytest.approx([0.5] * 4)
