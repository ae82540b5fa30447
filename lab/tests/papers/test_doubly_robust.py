"""Being right about one of two things: the estimate, and the policy that is learnt."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from prefero_lab.papers.experiments.doubly_robust import Estimates, Policies, made

RIGHT = {"reference": "right", "preference": "right"}
DRPO = {"objective": {"method": "drpo", "baseline": 0.5}}
POLICIES = Policies(prompts=3, responses=4, pairs=60, steps=100)


def win_rate(**settings: object) -> float:
    world = POLICIES.make(0)
    policy = POLICIES.train(world, settings, 0).model if settings else POLICIES.start(world)
    return fmean(POLICIES.measure(world, policy, 0)["win rate"])


def test_pairs_are_drawn_from_the_true_reference_and_won_by_the_true_preferences() -> None:
    world = made(2, 3, 0)
    drawn, won = world.pairs(20000, 0)
    shares = torch.stack([(drawn == one).double().mean((1, 2)) for one in range(3)], -1)
    torch.testing.assert_close(shares, world.truth.reference, atol=0.01, rtol=0)
    first = (drawn[..., 0] == 0) & (drawn[..., 1] == 1)
    for prompt in range(2):
        share = won[prompt][first[prompt]].double().mean()
        assert float(share) == pytest.approx(float(world.truth.preference[prompt, 0, 1]), abs=0.05)


@pytest.mark.parametrize("wrong", [{}, {"reference": "wrong"}, {"preference": "wrong"}])
def test_an_estimate_needs_one_of_the_two(wrong: dict[str, str]) -> None:
    experiment = Estimates(prompts=8, responses=4)
    world = experiment.make(0)

    def error(**settings: str) -> float:
        estimate = experiment.train(world, {"pairs": 3000, **RIGHT, **settings}, 0).model
        return fmean(experiment.measure(world, estimate, 0)["error"])

    assert error(**wrong) < 0.03 < 0.05 < error(reference="wrong", preference="wrong")


def test_the_start_wins_half_the_time_and_policies_win_more() -> None:
    assert win_rate() == pytest.approx(0.5)
    drpo = win_rate(**DRPO, **RIGHT)
    assert drpo > 0.55 and drpo == win_rate(**DRPO, **RIGHT)
    assert win_rate(objective={"method": "dpo", "beta": 0.1}, **RIGHT) > 0.52


def test_labels_correct_what_wrong_preferences_say() -> None:
    """Without the correction, or with its sign turned, the policy would follow them."""
    wrong = {"reference": "right", "preference": "wrong"}
    assert win_rate(**DRPO, **wrong) > win_rate(**DRPO, **wrong, direct=True) + 0.02
