"""Self-play by the objectives themselves is the game dynamics of the theory."""

from __future__ import annotations

import pytest
import torch

from prefero.objectives import from_config
from prefero.theory.games import (
    duality_gap,
    extragradient_step,
    soft_policy_iteration,
    von_neumann_winner,
    worst_case_win_rate,
)
from prefero_lab.worlds.bandit import Bandit
from prefero_lab.worlds.self_play import Game, towards_reference


def test_a_cycle_has_a_winner_that_plays_everything() -> None:
    games = Bandit.cycle(4)
    torch.testing.assert_close(games.preference + games.preference.mT, torch.ones(4, 3, 3).double())
    assert all(bool((von_neumann_winner(wins) > 0.05).all()) for wins in games.preference)


def test_sppo_rounds_are_multiplicative_weights_as_far_as_the_normaliser_is_balanced() -> None:
    games = Bandit.cycle(2, seed=1)
    game = Game(games, from_config({"method": "sppo", "beta": 10.0, "weight": "given"}))
    path = game.rounds(15)
    for number, (wins, reference) in enumerate(zip(games.preference, games.reference, strict=True)):
        exact = soft_policy_iteration(wins, reference, 10.0, 15)
        torch.testing.assert_close(path[:, number], exact, atol=5e-3, rtol=0)
        # towards the fixed reference it would stand still after the first round
        assert not torch.allclose(path[-1, number], path[1, number], atol=2e-2)


def test_the_average_of_rounds_is_harder_to_beat_than_the_last_one_and_the_first() -> None:
    games = Bandit.cycle(1, seed=2)
    path = Game(games, from_config({"method": "sppo", "beta": 3.0, "weight": "given"})).rounds(60)
    average, first, last = (
        float(worst_case_win_rate(games.preference[0], one))
        for one in (path.mean(0)[0], path[0, 0], path[-1, 0])
    )
    assert average > first + 0.02 and average > last + 0.05


def step_size(game: Bandit, step: float) -> float:
    """The learning rate that takes mirror descent's step: the loss is a mean over games and over pairs of
    different responses."""
    prompts, responses = game.reference.shape
    return step * prompts * (responses - 1) / 4


@pytest.mark.parametrize("prompts", [1, 3])
def test_descent_on_online_ipo_is_mirror_descent_and_two_gradients_are_egpo(prompts: int) -> None:
    """The second gradient is taken where the first one was, not at the half step."""
    beta, step, many = 0.2, 0.1, 4
    bandit = Bandit.game(prompts, 5, seed=2)
    game = Game(bandit, from_config({"method": "online_ipo", "beta": beta}))
    plain = game.descent(many, step_size(bandit, step)).probabilities()
    extra = game.extragradient(many, step_size(bandit, step)).probabilities()
    for number, (wins, reference) in enumerate(zip(bandit.preference, bandit.reference, strict=True)):
        half = full = reference.log()
        for _ in range(many):
            half = extragradient_step(wins, half, reference.log(), beta, step)[0]
            full = extragradient_step(wins, full, reference.log(), beta, step)[1]
        torch.testing.assert_close(plain[number], half.softmax(-1), atol=1e-6, rtol=0)
        torch.testing.assert_close(extra[number], full.softmax(-1), atol=1e-6, rtol=0)


def test_the_last_policy_of_egpo_is_the_equilibrium_where_mirror_descent_circles() -> None:
    bandit, beta = Bandit.cycle(1, seed=2), 0.04
    game = Game(bandit, from_config({"method": "online_ipo", "beta": beta}))
    rate = step_size(bandit, 0.08)
    gaps = [
        float(
            duality_gap(bandit.preference[0], policy.probabilities()[0].detach(), bandit.reference[0], beta)
        )
        for policy in (
            game.extragradient(80, rate),
            game.descent(160, rate),
        )
    ]
    assert gaps[0] < 1e-2 and gaps[0] < 0.2 * gaps[1]


def test_nash_md_meets_a_policy_between_itself_and_the_reference() -> None:
    policy, reference = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.5, 0.5]])
    torch.testing.assert_close(towards_reference(1.0)(policy, reference), reference)
    torch.testing.assert_close(towards_reference(0.0)(policy, reference), policy)
    expected = torch.tensor([[2 / 3, 1 / 3]])
    torch.testing.assert_close(towards_reference(0.5)(policy, reference), expected)
