"""Two modes: where the bumps are, and policies with one of their own."""

from __future__ import annotations

import torch

from prefero_lab.worlds.two_modes import HEIGHTS, TwoModes, actions


def test_the_higher_bump_is_on_the_right_and_policies_start_beside_the_one_named() -> None:
    world = TwoModes.drawn(5, 0)
    assert world.bandit.reward is not None
    best = actions()[world.bandit.reward.argmax(-1)]
    torch.testing.assert_close(best, world.modes[:, 0], atol=0.11, rtol=0)
    assert bool((world.bandit.reward.amax(-1) <= HEIGHTS[0] + 0.1).all())
    for mode, inwards in ((0, -0.25), (1, 0.25)):
        policy = world.beside(mode).log_probabilities().exp().detach()
        torch.testing.assert_close(policy @ actions(), world.modes[:, mode] + inwards, atol=0.02, rtol=0)
    again, other = TwoModes.drawn(5, 0), TwoModes.drawn(5, 1)
    assert torch.equal(again.modes, world.modes) and not torch.equal(other.modes, world.modes)


def test_references_are_broad_and_every_action_can_be_drawn() -> None:
    reference = TwoModes.drawn(2, 0).bandit.reference
    assert float(reference.min()) > 1e-3
    spread = (reference @ actions() ** 2).sqrt()
    assert bool((spread > 1.5).all())
