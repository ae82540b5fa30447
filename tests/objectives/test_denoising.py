"""Denoising errors as log-probabilities: signs, halves, targets and rankings."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.errors import PreferoError
from prefero.feedback.win_rates import shares_of_wins
from prefero.models.diffusion.process import denoising_step, pseudo_huber, rectified_flow, squared_error
from prefero.objectives import PreferenceBatch, TokenLogps, method, primary
from tests.objectives.batches import build, slope_of


def errors(policy, reference, roles=("chosen", "rejected"), **columns) -> PreferenceBatch:
    """One time step a response, with these errors, [example][response]."""
    logps = {
        name: -torch.tensor(values, dtype=torch.float64)[..., None]
        for name, values in (("policy", policy), ("reference", reference))
    }
    mask = torch.ones_like(logps["policy"], dtype=torch.bool)
    models = {name: TokenLogps(values, mask) for name, values in logps.items()}
    models["policy"] = TokenLogps(logps["policy"].requires_grad_(), mask)
    return PreferenceBatch(models, columns, roles)


KEYS = ("diffusion_dpo", "flow_dpo", "smpo", "consistency_dpo")


@pytest.mark.parametrize("key", KEYS)
def test_equal_models_start_at_log_two(key: str) -> None:
    arguments = {"anchor": 0.0} if key == "flow_dpo" else {}
    batch = errors([[0.3, 0.7]], [[0.3, 0.7]], score=torch.tensor([[0.9, 0.1]]).double())
    loss = build(key, **arguments).loss(batch)
    assert loss.item() == pytest.approx(math.log(2))
    better, worse = slope_of(loss, batch)[0, :, 0]
    assert better < 0 < worse, "the chosen error falls"


def test_a_number_worked_out_by_hand() -> None:
    batch = errors([[0.9, 1.1]], [[1.0, 1.0]])
    for key, arguments in (
        ("diffusion_dpo", {"beta": 20.0}),
        ("flow_dpo", {"beta": 20.0, "anchor": 0.0}),
        ("consistency_dpo", {"beta": 10.0}),
    ):
        objective = build(key, **arguments)
        assert primary(objective).comparisons(batch).margins.item() == pytest.approx(2.0)
        assert objective.loss(batch).item() == pytest.approx(0.126928, rel=1e-5)


def test_the_anchor_is_the_chosen_error() -> None:
    batch = errors([[0.9, 1.1]], [[1.0, 1.0]])
    difference = build("flow_dpo", anchor=2.0).loss(batch) - build("flow_dpo", anchor=0.0).loss(batch)
    assert difference.item() == pytest.approx(2 * 0.9)


def test_only_masked_patches_count_and_they_are_averaged() -> None:
    """Averaged over all patches, the two that were not masked would dilute the error."""
    mask = torch.tensor([True, False, True, False]).expand(1, 2, 4)
    policy = -torch.tensor([[[0.2, 9.0, 0.4, 9.0], [0.5, 9.0, 0.5, 9.0]]], dtype=torch.float64)
    reference = torch.where(mask, -0.4, 0.0).double()
    models = {
        "policy": TokenLogps(torch.where(mask, policy, 0), mask),
        "reference": TokenLogps(reference, mask),
    }
    margins = primary(build("diffusion_dpo", beta=2.0)).comparisons(PreferenceBatch(models)).margins
    assert margins.item() == pytest.approx((0.4 - 0.3) - (0.4 - 0.5))


# SmPO


def scores(chosen: float, rejected: float) -> torch.Tensor:
    return torch.tensor([[chosen, rejected]], dtype=torch.float64)


def test_a_tie_teaches_nothing() -> None:
    batch = errors([[0.1, 0.9]], [[0.5, 0.5]], score=scores(0.4, 0.4))
    loss = build("smpo").loss(batch)
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.equal(slope_of(loss, batch), torch.zeros(1, 2, 1).double())


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (-2.0, 3.0)])
def test_the_factor_is_the_tanh_of_half_the_gap_inside_the_sigmoid(lowest: float, highest: float) -> None:
    extent = highest - lowest
    batch = errors([[0.1, 0.9]], [[0.5, 0.5]], score=scores(0.7 * extent, 0.1 * extent))
    loss = build("smpo", beta=3.0, gamma=10.0, lowest=lowest, highest=highest).loss(batch)
    margin = 1.5 * 0.8 * 10 * math.tanh(0.3)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-margin)))


def test_a_wrong_label_turns_its_pair_around() -> None:
    batch = errors([[0.5, 0.5]], [[0.5, 0.5]], score=scores(0.1, 0.9))
    slope = slope_of(build("smpo").loss(batch), batch)
    assert slope[0, 0, 0] > 0 > slope[0, 1, 0]


def test_a_range_upside_down_is_refused() -> None:
    with pytest.raises(PreferoError, match="highest of smpo is above lowest"):
        method("smpo", lowest=1.0, highest=0.5)


# RankDPO


def ranked(policy, wins) -> PreferenceBatch:
    return errors([policy], [[0.5] * len(policy)], (), win_rate=torch.tensor([wins], dtype=torch.float64))


def weights(policy, wins) -> torch.Tensor:
    objective, batch = build("rankdpo"), ranked(policy, wins)
    return objective.weight(objective.comparisons(batch)).view(len(wins), -1)


def test_two_images_are_diffusion_dpo_times_a_constant() -> None:
    batch = ranked([0.4, 0.6], [1.0, 0.0])
    pair = PreferenceBatch(batch.models, {}, ("chosen", "rejected"))
    constant = 1 / math.log(2) - 1 / math.log(3)
    assert constant == pytest.approx(0.532456, rel=1e-5)
    loss = build("rankdpo", beta=30.0).loss(batch)
    torch.testing.assert_close(loss, constant * build("diffusion_dpo", beta=30.0).loss(pair))


def test_places_are_the_judges_and_not_the_models() -> None:
    """A model that has it the wrong way round changes no weight."""
    wins = [1.0, 2 / 3, 1 / 3, 0.0]
    assert torch.equal(weights([0.1, 0.2, 0.3, 0.4], wins), weights([0.4, 0.3, 0.2, 0.1], wins))
    weight = weights([0.1, 0.2, 0.3, 0.4], wins)
    assert weight[0, 3] > weight[1, 2] > 0
    assert weight[3, 0] == 0


def test_images_that_win_as_often_do_not_meet() -> None:
    batch = ranked([0.1, 0.9], [0.5, 0.5])
    assert build("rankdpo").loss(batch) == 0


def test_shares_of_wins_count_no_ties() -> None:
    judged = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert shares_of_wins(judged).tolist() == pytest.approx([3 / 4, 2 / 4, 0])
    assert shares_of_wins(torch.tensor([[1.0]])).tolist() == [0]


# errors and states


def test_the_robust_error_goes_to_the_absolute_one_and_keeps_its_digits() -> None:
    prediction, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 0.0]])
    assert pseudo_huber(prediction, target, 1e-9).item() == pytest.approx(1.5)
    tiny = torch.tensor([[1e-6]])
    assert pseudo_huber(tiny, torch.zeros(1, 1), 1.0).item() == pytest.approx(5e-13, rel=1e-5)


def test_the_velocitys_target_is_its_own_sides() -> None:
    noise, sigma = torch.ones(1, 2), torch.tensor([0.25])
    first, second = (rectified_flow(torch.full((1, 2), data), noise, sigma) for data in (0.0, 3.0))
    assert first[1].tolist() != second[1].tolist()
    assert second[0].tolist() == [[0.75 * 3 + 0.25] * 2]
    state, velocity = second
    torch.testing.assert_close(state - 0.25 * velocity, torch.full((1, 2), 3.0))


def test_a_step_with_the_true_noise_and_the_same_draw_has_no_error() -> None:
    """Features of the two states then agree; a second draw would tell them apart."""
    numbers = torch.Generator().manual_seed(0)
    state, noise, draw = torch.randn(3, 2, 4, generator=numbers, dtype=torch.float64)
    schedule = torch.tensor([0.01, 0.02]).double(), torch.tensor([0.5, 0.4]).double()
    again, other = (denoising_step(state, noise, *schedule, added) for added in (draw, draw + 1))
    assert torch.equal(again, denoising_step(state, noise, *schedule, draw))
    assert (squared_error(again, other) > 0).all()


def test_a_steps_error_is_the_noises_scaled() -> None:
    """With the identity for features NCP is diffusion_dpo with a weight for the time step."""
    numbers = torch.Generator().manual_seed(1)
    state, noise, predicted, draw = torch.randn(4, 1, 6, generator=numbers, dtype=torch.float64)
    beta, alpha_bar = torch.tensor([0.02]).double(), torch.tensor([0.6]).double()
    true, found = (denoising_step(state, which, beta, alpha_bar, draw) for which in (noise, predicted))
    scale = beta**2 / ((1 - alpha_bar) * (1 - beta))
    torch.testing.assert_close(squared_error(found, true), scale * squared_error(predicted, noise))
