from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.theory import games


def random_game(count: int, seed: int, *, certain: bool = False) -> Tensor:
    """P with P + Pᵀ = 1; wins are certain if asked for."""
    numbers = torch.rand(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wins = (numbers > 0.5).double() if certain else numbers
    return torch.triu(wins, 1) + torch.tril(1 - wins.T, -1) + 0.5 * torch.eye(count)


CYCLE = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("count", [2, 3, 8, 25])
def test_the_winner_loses_to_nobody(count: int, certain: bool) -> None:
    for seed in range(5):
        game = random_game(count, seed, certain=certain)
        winner = games.von_neumann_winner(game)
        assert float(winner.sum()) == pytest.approx(1)
        assert float(games.worst_case_win_rate(game, winner)) == pytest.approx(0.5, abs=1e-12)
        assert float(games.duality_gap(game, winner)) == pytest.approx(0, abs=1e-12)


def test_the_winner_of_a_cycle_weighs_by_the_opposite_edges() -> None:
    a, b, c = 0.2, 0.3, 0.4
    game = torch.tensor([[0.5, 0.5 + a, 0.5 - b], [0.5 - a, 0.5, 0.5 + c], [0.5 + b, 0.5 - c, 0.5]]).double()
    expected = torch.tensor([c, b, a]).double() / (a + b + c)
    torch.testing.assert_close(games.von_neumann_winner(game), expected, rtol=1e-6, atol=0)


def test_a_condorcet_winner_gets_all_mass() -> None:
    game = random_game(6, 3)
    game[2], game[:, 2] = 0.51, 0.49
    game[2, 2] = 0.5
    assert games.von_neumann_winner(game).argmax() == 2
    assert float(games.von_neumann_winner(game)[2]) == pytest.approx(1)


def test_a_game_that_is_not_symmetric_has_its_own_value() -> None:
    numbers = torch.rand(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # what the row player is sure of is what the column player cannot avoid
    assert float(games.game_value(numbers)) == pytest.approx(1 - float(games.game_value(1 - numbers.T)))


@pytest.mark.parametrize("beta", [0.5, 0.05])
def test_the_regularised_equilibrium_is_its_own_best_reply(beta: float) -> None:
    game, reference = random_game(6, 0), torch.arange(1.0, 7).double() / 21
    policy = games.regularised_equilibrium(game, reference, beta)
    reply = (reference.log() + game @ policy / beta).softmax(-1)
    torch.testing.assert_close(reply, policy, rtol=1e-10, atol=0)
    assert float(games.duality_gap(game, policy, reference, beta)) == pytest.approx(0, abs=1e-12)


def test_the_duality_gap_is_positive_elsewhere() -> None:
    game, reference = random_game(6, 0), torch.arange(1.0, 7).double() / 21
    for beta in (0.0, 0.1):
        assert float(games.duality_gap(game, reference, reference, beta)) > 1e-3
    with pytest.raises(PreferoError, match="needs its reference"):
        games.duality_gap(game, reference, beta=0.1)


def test_without_preferences_the_equilibrium_is_the_reference() -> None:
    reference = torch.arange(1.0, 5).double() / 10
    even = torch.full((4, 4), 0.5, dtype=torch.float64)
    torch.testing.assert_close(games.regularised_equilibrium(even, reference, 0.1), reference)


def test_extragradient_converges_where_the_half_step_alone_circles() -> None:
    reference = torch.full((3,), 1 / 3, dtype=torch.float64)
    start = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    beta, step = 0.01, 0.01
    full, half = start, start
    for _ in range(3000):
        full = games.extragradient_step(CYCLE, full, reference.log(), beta, step)[1]
        half = games.extragradient_step(CYCLE, half, reference.log(), beta, step)[0]
    ends = [float(games.duality_gap(CYCLE, end.softmax(-1), reference, beta)) for end in (full, half)]
    assert ends[0] < 1e-6
    assert ends[1] > 0.1


def test_extragradient_is_gradient_descent_on_the_online_ipo_loss() -> None:
    game, beta, rate = random_game(5, 2), 0.2, 0.03
    logits = torch.tensor([0.3, -0.1, 0.8, 0.0, -0.5], dtype=torch.float64)
    anchor = torch.tensor([0.1, 0.2, 0.0, -0.3, 0.4], dtype=torch.float64)

    def descended(opponent: Tensor) -> Tensor:
        theta = logits.clone().requires_grad_()
        ratio, wins = theta - anchor, game @ opponent / beta
        errors = (ratio[:, None] - ratio) - (wins[:, None] - wins)
        (slope,) = torch.autograd.grad(errors.square().mean(), theta)
        return (logits - rate * slope).softmax(-1)

    half, full = games.extragradient_step(
        game, logits, anchor, beta, games.online_ipo_step_size(rate, len(logits))
    )
    torch.testing.assert_close(half.softmax(-1), descended(logits.softmax(-1)))
    torch.testing.assert_close(full.softmax(-1), descended(half.softmax(-1)))


def test_win_rates_leave_out_the_response_itself_and_average_to_a_half() -> None:
    game = random_game(5, 4)
    rewards = games.win_rate_rewards(game)
    assert float(rewards.mean()) == pytest.approx(0.5)
    # whatever stands on the diagonal
    torch.testing.assert_close(games.win_rate_rewards(game + torch.eye(5)), rewards)
    with pytest.raises(PreferoError, match="at least two"):
        games.win_rate_rewards(game[:1, :1])


def test_self_play_averages_to_the_winner_though_its_last_policy_circles() -> None:
    start = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    path = games.soft_policy_iteration(CYCLE, start, 20.0, 4000)
    assert float(games.worst_case_win_rate(CYCLE, path.mean(0))) > 0.49
    assert float(games.worst_case_win_rate(CYCLE, path[-1])) < 0.45


def test_self_play_follows_the_utility_where_there_is_one() -> None:
    utility = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    game = torch.sigmoid(utility[:, None] - utility)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert games.soft_policy_iteration(game, uniform, 0.5, 100)[-1].argmax() == 1


def test_rewards_of_preferences_are_relative_to_the_baseline_and_bounded() -> None:
    rates = torch.tensor([0.5, 0.7310585786300049, 1.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, 3.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(games.reward_of_preference(rates, 3.0), expected)
