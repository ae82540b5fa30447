from __future__ import annotations

import pytest
import torch

from prefero.theory.misspecified import LogLinearBandit
from prefero.theory.optima import reward_optimum

REWARD = torch.tensor([0.505, -0.205, -0.065, -2.044], dtype=torch.float64)
SAMPLING = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
UNIFORM = torch.full((4,), 0.25, dtype=torch.float64)
FEATURE = torch.tensor([[0.171], [0.291], [0.424], [1.154]], dtype=torch.float64)
SMALL = LogLinearBandit(FEATURE, REWARD, UNIFORM, 0.5)


def test_online_dpo_beats_dpo_and_nothing_beats_the_class_optimum_in_the_class() -> None:
    values = [
        float(SMALL.value(theta))
        for theta in (SMALL.dpo(SAMPLING), SMALL.online_dpo(), SMALL.class_optimum(SAMPLING))
    ]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.00293, abs=1e-5)
    assert values[1] == pytest.approx(0.00484, abs=1e-5)
    assert values[2] < float(SMALL.best_value())


@pytest.mark.parametrize("sampling", [SAMPLING, SAMPLING.flip(0)])
def test_isomorphic_classes_make_rlhf_and_dpo_the_same(sampling: torch.Tensor) -> None:
    torch.testing.assert_close(SMALL.rlhf(sampling), SMALL.dpo(sampling))


def test_a_class_with_the_truth_in_it_is_optimal_for_all_methods_and_samplings() -> None:
    identity = torch.eye(4, dtype=torch.float64)
    bandit = LogLinearBandit(identity, REWARD, UNIFORM, 0.5)
    optimum = reward_optimum(UNIFORM, REWARD, 0.5)
    for sampling in (SAMPLING, UNIFORM):
        for theta in (bandit.dpo(sampling), bandit.rlhf(sampling), bandit.class_optimum(sampling)):
            torch.testing.assert_close(bandit.policy(theta), optimum, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(bandit.policy(bandit.online_dpo()), optimum, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(bandit.value(bandit.dpo(SAMPLING)), bandit.best_value())


def test_another_reference_is_where_no_feature_leads() -> None:
    bandit = LogLinearBandit(FEATURE, REWARD, SAMPLING, 0.5)
    torch.testing.assert_close(bandit.policy(torch.zeros(1).double()), SAMPLING)


def test_the_class_optimum_has_no_slope() -> None:
    assert float(SMALL.value_slope(SMALL.class_optimum(SAMPLING)).abs()) < 1e-12
