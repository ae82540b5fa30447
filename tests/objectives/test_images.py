"""Denoising steps, moving references and rare pairs as comparisons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.objectives import PreferenceBatch, TokenLogps
from prefero.objectives.presets.images import clipped_log_ratio
from prefero.objectives.signals import NOISE_LEVEL, prediction_distance
from tests.objectives.batches import build, pair_batch, slope_of

LOG_TWO = pytest.approx(math.log(2))


def tie(*values: bool) -> dict[str, Tensor]:
    return {"tie": torch.tensor(values)}


def test_a_tie_costs_log_two_and_teaches_nothing() -> None:
    batch = pair_batch([0.03, 0.03], [-0.02, -0.02], tie(True, False))
    (term,) = build("d3po", beta=1.0)(batch)
    assert term.values[0].item() == LOG_TWO
    slope = slope_of(term.total, batch)
    assert (slope[0] == 0).all() and (slope[1] != 0).all()


@pytest.mark.parametrize("key", ("d3po", "spo_step_aware"))
def test_a_saturated_side_has_no_gradient_in_either_direction_and_the_other_side_keeps_its_own(
    key: str,
) -> None:
    batch = pair_batch([0.5, 0.02, -0.5], [0.01, -0.5, -0.01], tie(False, False, False))
    slope = slope_of(build(key, beta=1.0, clip=0.1).loss(batch), batch)[..., 0]
    assert (slope[0, 0], slope[1, 1], slope[2, 0]) == (0, 0, 0)
    assert slope[0, 1] > 0 and slope[1, 0] < 0 and slope[2, 1] > 0


def test_the_ratio_is_clipped_not_its_logarithm() -> None:
    """1 ± ε, whose logarithms are not as far from 0."""
    clipped = clipped_log_ratio(0.1)(pair_batch([2.0], [-2.0]))
    torch.testing.assert_close(clipped.exp().flatten(), torch.tensor([1.1, 0.9], dtype=torch.float64))


def test_swapping_trajectories_with_their_labels_changes_nothing_and_without_turns_the_margin() -> None:
    objective = build("d3po")
    there = objective.comparisons(pair_batch([0.03], [-0.02])).margins
    back = objective.comparisons(pair_batch([-0.02], [0.03])).margins
    torch.testing.assert_close(there, -back)


def timed(level: float, distance: float = 0.0) -> PreferenceBatch:
    batch = pair_batch([0.3], [-0.1])
    like = torch.ones_like(batch.models["policy"].logps)
    signals = {
        NOISE_LEVEL: level * like,
        prediction_distance("initial"): torch.tensor([[[distance], [9.0]]], dtype=torch.float64),
    }
    policy = TokenLogps(batch.models["policy"].logps, batch.mask, signals)
    return PreferenceBatch({**batch.models, "policy": policy})


def test_noisier_steps_weigh_more_outside_the_sigmoid_or_inside() -> None:
    plain = build("diffusion_dpo", beta=3.0).loss(timed(0.5))
    outside = build("timestep_aware_dpo", beta=3.0, lam=0.0, power=2.0).loss(timed(0.5))
    torch.testing.assert_close(outside, plain / 4)
    inside = build("timestep_aware_dpo", beta=3.0, lam=0.0, power=2.0, weighted="margin").loss(timed(0.5))
    torch.testing.assert_close(inside, build("diffusion_dpo", beta=0.75).loss(timed(0.5)))


def test_the_penalty_is_on_the_chosen_image_alone() -> None:
    with_penalty, without = (
        build("timestep_aware_dpo", lam=0.5).loss(timed(0.5, distance)) for distance in (0.2, 0.0)
    )
    torch.testing.assert_close(with_penalty - without, torch.tensor(0.1, dtype=torch.float64))


def test_a_weight_multiplies_loss_and_gradient_and_is_not_normalised() -> None:
    light, heavy = (
        pair_batch([0.3, 0.1], [-0.1, 0.2], {"weight": torch.tensor([size, 3 * size])}) for size in (1.0, 2.0)
    )
    objective = build("video_dpo", beta=2.0)
    torch.testing.assert_close(2 * objective.loss(light), objective.loss(heavy))
    torch.testing.assert_close(
        2 * slope_of(objective.loss(light), light), slope_of(objective.loss(heavy), heavy)
    )
