from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.theory.optima import (
    divergence,
    divergence_optimum,
    independent_pairs_optimum,
    pmpo_optimum,
    reward_optimum,
    reward_optimum_value,
)

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([-0.3, 0.5, 0.1, 0.9], dtype=torch.float64)
KINDS = ["reverse_kl", "forward_kl", "jsd", "alpha"]


def others(policy: Tensor, count: int = 200) -> Tensor:
    """Policies around one."""
    noise = torch.randn(count, len(policy), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (policy.log() + 0.3 * noise).softmax(-1)


@pytest.mark.parametrize("beta", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_no_other_policy_has_more_reward_less_divergence(kind: str, beta: float) -> None:
    best = divergence_optimum(REFERENCE, REWARD, beta, kind)
    assert float(best.sum()) == pytest.approx(1, abs=1e-14)

    def value(policy: Tensor) -> float:
        return float(policy @ REWARD - beta * divergence(policy, REFERENCE, kind))

    assert all(value(other) < value(best) for other in others(best.clamp(min=1e-12)))


SLOPES = {
    "forward_kl": lambda v: -1 / v,
    "jsd": lambda v: (2 * v / (1 + v)).log(),
    "alpha": lambda v: (1 - v**-0.3) / 0.3,
}


@pytest.mark.parametrize("beta", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("kind", SLOPES)
def test_the_slopes_of_f_differ_as_the_rewards_do(kind: str, beta: float) -> None:
    policy = divergence_optimum(REFERENCE, REWARD, beta, kind, alpha=0.3)
    recovered = beta * SLOPES[kind](policy / REFERENCE)
    torch.testing.assert_close(recovered - recovered[0], REWARD - REWARD[0], rtol=1e-9, atol=1e-11)


def test_alpha_goes_from_reverse_to_forward_kl() -> None:
    for alpha, kind in ((1e-6, "reverse_kl"), (1 - 1e-6, "forward_kl")):
        torch.testing.assert_close(
            divergence_optimum(REFERENCE, REWARD, 0.3, "alpha", alpha),
            divergence_optimum(REFERENCE, REWARD, 0.3, kind),
            rtol=1e-4,
            atol=1e-7,
        )


def test_what_the_reference_never_does_no_optimum_does() -> None:
    reference = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    reward = torch.tensor([0.0, 1.0, 9.0], dtype=torch.float64)
    for kind in KINDS:
        policy = divergence_optimum(reference, reward, 0.5, kind)
        assert policy[2] == 0
        assert policy.isfinite().all()
        torch.testing.assert_close(policy[:2], divergence_optimum(reference[:2], reward[:2], 0.5, kind))


def test_at_equal_beta_and_large_rewards_jsd_is_sharpest_and_forward_kl_flattest() -> None:
    entropy = {
        kind: float(torch.special.entr(divergence_optimum(REFERENCE, 3 * REWARD, 0.3, kind)).sum())
        for kind in KINDS
    }
    assert entropy["jsd"] < entropy["reverse_kl"] < entropy["alpha"] < entropy["forward_kl"]


def test_the_optimal_value_is_that_of_the_optimal_policy() -> None:
    policy = reward_optimum(REFERENCE, REWARD, 0.7)
    value = policy @ REWARD - 0.7 * divergence(policy, REFERENCE)
    torch.testing.assert_close(reward_optimum_value(REFERENCE, REWARD, 0.7), value)


def test_a_shift_of_the_rewards_moves_only_the_value() -> None:
    torch.testing.assert_close(
        reward_optimum(REFERENCE, REWARD + 3, 0.7), reward_optimum(REFERENCE, REWARD, 0.7)
    )
    shifted = reward_optimum_value(REFERENCE, REWARD + 3, 0.7)
    torch.testing.assert_close(shifted, reward_optimum_value(REFERENCE, REWARD, 0.7) + 3)


def dpo_population_slope(policy: Tensor, chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    logits = policy.log().clone().requires_grad_()
    ratio = beta * (logits.log_softmax(0) - REFERENCE.log())
    weight = chosen[:, None] * rejected
    loss = -(weight * torch.nn.functional.logsigmoid(ratio[:, None] - ratio)).sum()
    (slope,) = torch.autograd.grad(loss, logits)
    return slope


def test_independent_pairs_leave_no_slope_at_their_optimum() -> None:
    chosen = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    rejected = torch.tensor([0.25, 0.35, 0.15, 0.25], dtype=torch.float64)
    for beta in (0.5, 1.0):
        policy = independent_pairs_optimum(REFERENCE, chosen, rejected, beta)
        assert float(dpo_population_slope(policy, chosen, rejected, beta).abs().max()) < 1e-12
        # the exponent is 1/beta, not beta
        wrong = independent_pairs_optimum(REFERENCE, chosen, rejected, 2 * beta)
        assert float(dpo_population_slope(wrong, chosen, rejected, beta).abs().max()) > 1e-3


def test_uniform_negatives_concentrate_more_than_self_play_negatives() -> None:
    data = torch.tensor([0.55, 0.25, 0.15, 0.05], dtype=torch.float64)
    uniform = torch.full_like(data, 0.25)
    entropies = [
        float(torch.special.entr(independent_pairs_optimum(data, data, negatives, 0.1)).sum())
        for negatives in (uniform, data)
    ]
    assert entropies[0] < 0.01 < 1 < entropies[1]


def test_beta_of_one_reaches_the_data_from_self_play_in_one_step() -> None:
    data = torch.tensor([0.55, 0.25, 0.15, 0.05], dtype=torch.float64)
    torch.testing.assert_close(independent_pairs_optimum(REFERENCE, data, REFERENCE, 1.0), data)


def test_pmpo_maximises_its_objective_and_says_when_nothing_does() -> None:
    accepted = torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=torch.float64)
    rejected = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    best = pmpo_optimum(REFERENCE, accepted, rejected, 0.8, 3.0)
    assert best is not None

    def value(policy: Tensor) -> float:
        likelihood = 0.8 * accepted @ policy.log() - 0.2 * rejected @ policy.log()
        return float(likelihood - 3.0 * divergence(REFERENCE, policy))

    assert all(value(other) < value(best) for other in others(best))
    assert pmpo_optimum(REFERENCE, accepted, rejected, 0.8, 1.0) is None


def test_pmpo_with_a_strong_reference_stays_at_it() -> None:
    nothing = torch.zeros(4, dtype=torch.float64)
    rejected = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    policy = pmpo_optimum(REFERENCE, nothing, rejected, 0.0, 1e9)
    torch.testing.assert_close(policy, REFERENCE, atol=1e-8, rtol=0)
    assert math.isclose(float(policy.sum()), 1.0)
