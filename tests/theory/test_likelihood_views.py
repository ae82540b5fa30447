"""The vector field of DPO's loss, differential information, and accelerated rounds."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.errors import PreferoError
from prefero.theory.distributions import (
    differential_information,
    estimated_information_entropy,
    information_entropy,
    information_power,
    information_preference,
    optimal_rejected,
    power_law,
)
from prefero.theory.games import extrapolate, extrapolate_parameters, proximal_path
from prefero.theory.optima import reward_optimum
from prefero.theory.vector_field import descent, dpo_field, field_of
from tests.objectives.batches import build, pair_batch, slope_of

POLICY = torch.tensor([0.07, 0.25, 0.28, 0.37, 0.03], dtype=torch.float64)
REFERENCE = torch.tensor([0.29, 0.15, 0.06, 0.27, 0.23], dtype=torch.float64)


def test_the_field_by_hand() -> None:
    even = dpo_field(torch.zeros(()).double(), torch.zeros(()).double(), 0.3)
    assert float(even.loss) == pytest.approx(math.log(2))
    assert float(even.slope_chosen) == pytest.approx(-0.15)
    assert float(even.slope_rejected) == pytest.approx(0.15)
    field = dpo_field(torch.tensor(2.0).double().log(), torch.zeros(()).double(), 1.0)
    assert float(field.loss) == pytest.approx(0.405465, rel=1e-6)
    assert float(field.slope_chosen) == pytest.approx(-1 / 6)
    assert float(field.slope_rejected) == pytest.approx(1 / 3)


def test_the_field_is_the_gradient_of_the_dpo_method_divided_by_the_ratios() -> None:
    chosen, rejected = [0.4, -1.3, 2.0], [-0.2, 0.7, 1.0]
    batch = pair_batch(chosen, rejected)
    slope = slope_of(build("dpo", beta=0.7).loss(batch), batch).squeeze(-1) * len(chosen)
    chosen_ratio, rejected_ratio = torch.tensor([chosen, rejected]).double()
    field = dpo_field(chosen_ratio, rejected_ratio, 0.7)
    torch.testing.assert_close(slope[:, 0], chosen_ratio.exp() * field.slope_chosen)
    torch.testing.assert_close(slope[:, 1], rejected_ratio.exp() * field.slope_rejected)
    torch.testing.assert_close(slope[:, 0], -slope[:, 1])


def test_the_field_is_finite_at_ratios_beyond_the_range_of_floats() -> None:
    ratio = torch.tensor([-800.0, 800.0, 0.0], dtype=torch.float64)
    field = dpo_field(ratio, ratio.flip(0), 0.1)
    assert field.loss.isfinite().all()
    assert not field.slope_chosen.isnan().any()


def test_descent_keeps_the_circle_so_the_chosen_ratio_is_bounded_and_the_rejected_one_is_not() -> None:
    path = descent(1.0, 1.0, beta=1.0, learning_rate=1e-3, steps=4000)
    radius = path.square().sum(1)
    torch.testing.assert_close(radius, torch.full_like(radius, 2.0), atol=2e-3, rtol=0)
    assert (1 - path[:, 1] >= path[:, 0] - 1 - 1e-9).all()
    assert float(path[:, 0].max()) < math.sqrt(2) + 1e-3
    assert float(path[-1, 1]) < 0.1


def test_the_ideal_rejected_responses_make_the_power_law() -> None:
    beta = 0.7
    rejected = optimal_rejected(POLICY, REFERENCE, beta)
    torch.testing.assert_close(
        differential_information(REFERENCE, rejected), information_power(POLICY, REFERENCE, beta)
    )
    law = power_law(POLICY, REFERENCE, rejected)
    assert law.slope == pytest.approx(beta)
    assert law.r_squared == pytest.approx(1)
    assert power_law(POLICY, REFERENCE, POLICY.flip(0)).r_squared < 0.9


def test_without_change_there_is_no_information() -> None:
    torch.testing.assert_close(
        differential_information(REFERENCE, REFERENCE), torch.full((5,), 0.2, dtype=torch.float64)
    )
    assert float(information_entropy(REFERENCE, REFERENCE)) == pytest.approx(math.log(5))
    torch.testing.assert_close(optimal_rejected(REFERENCE, REFERENCE, 0.7), REFERENCE)
    torch.testing.assert_close(optimal_rejected(POLICY, REFERENCE, 0.0), REFERENCE)


def test_dpo_on_preferences_that_encode_the_information_recovers_the_policy() -> None:
    beta = 0.7
    win = information_preference(POLICY, REFERENCE, beta)
    recovered = reward_optimum(REFERENCE, torch.logit(win)[:, 0], beta)
    torch.testing.assert_close(recovered, POLICY)


def test_the_entropy_is_estimated_from_samples_of_either_policy() -> None:
    exact = float(information_entropy(POLICY, REFERENCE))
    for proposal in (POLICY, REFERENCE):
        drawn = torch.multinomial(
            proposal, 40_000, replacement=True, generator=torch.Generator().manual_seed(0)
        )
        found = estimated_information_entropy(
            POLICY[drawn].log(), REFERENCE[drawn].log(), proposal[drawn].log()
        )
        assert found.entropy == pytest.approx(exact, abs=0.03)
        assert 1 < found.effective_samples <= 40_000


def test_extrapolation_of_log_linear_policies_is_that_of_their_parameters() -> None:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    following, current = torch.tensor([[0.4, -1.0, 0.2], [0.1, 0.5, -0.3]]).double()
    policies = extrapolate(features @ following, features @ current, 0.3)
    expected = (features @ extrapolate_parameters(following, current, 0.3)).log_softmax(-1)
    torch.testing.assert_close(policies.logps, expected)
    assert float(policies.logps.exp().sum()) == pytest.approx(1)


def test_momentum_is_taken_from_policies_before_extrapolation() -> None:
    """Differences against the extrapolated policy would give 1.3, 2.3, 3.3."""
    reward = torch.tensor([0.1, -0.4, 0.9], dtype=torch.float64)
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    path = proximal_path(reference, reward, 0.5, 3, alpha=0.3)
    torch.testing.assert_close(path.coefficients, torch.tensor([0, 1.3, 2.69, 4.107]).double())
    torch.testing.assert_close(path.coefficients_before, torch.tensor([0, 1, 2.3, 3.69]).double())
    for before, after, previous in zip(path.before[1:], path.policies[1:], path.before[:-1], strict=True):
        stepped = extrapolate(before.log(), previous.log(), 0.3).logps.exp()
        torch.testing.assert_close(stepped, after)
    gains = proximal_path(reference, reward, 0.5, 40, alpha=0.3).coefficients.diff()
    assert float(gains[-1]) == pytest.approx(1 / 0.7)


def test_without_momentum_it_is_iterated_dpo() -> None:
    reward = torch.tensor([0.1, -0.4, 0.9], dtype=torch.float64)
    path = proximal_path(REFERENCE[:3] / REFERENCE[:3].sum(), reward, 0.5, 4)
    stepped = path.policies[0]
    for policy in path.policies[1:]:
        stepped = reward_optimum(stepped, reward, 0.5)
        torch.testing.assert_close(policy, stepped)


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_field_of_the_dpo_method_is_the_closed_form(tokens: int) -> None:
    axis = torch.linspace(-3, 2, 7, dtype=torch.float64)
    chosen, rejected = torch.meshgrid(axis, axis, indexing="ij")
    found = field_of(build("dpo", beta=0.7), chosen, rejected, tokens=tokens)
    expected = dpo_field(chosen, rejected, 0.7)
    for name in ("loss", "slope_chosen", "slope_rejected", "speed_ratio"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_other_methods_have_other_fields() -> None:
    won = torch.tensor([2.0]).double(), torch.tensor([-2.0]).double()
    ipo = field_of(build("ipo", tau=1.0, tokens="sum"), *won)
    assert ipo.slope_chosen > 0, "a margin beyond 1/(2τ) is pulled back"
    kept = field_of(build("dpo") + build("nll", tokens="batch"), *won, tokens=4)
    assert float(kept.loss) == pytest.approx(
        float(dpo_field(won[0], won[1], 0.1).loss) - (2.0 - 4.0) / 4, rel=1e-12
    )


@pytest.mark.parametrize("key", ["kto", "dr_dpo", "odpo", "todo"])
def test_a_method_that_reads_more_than_two_likelihoods_has_no_field(key: str) -> None:
    with pytest.raises(PreferoError, match=f"{key} reads more"):
        field_of(build(key), torch.zeros(1), torch.zeros(1))
