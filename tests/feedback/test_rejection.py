"""Rejection sampling gives samples of the tilted policy."""

from __future__ import annotations

import random

import pytest
import torch

from prefero.errors import PreferoError
from prefero.feedback.rejection import acceptance, rejection_sample, reward_from_ranker, tempered

REWARDS = [0.3, -0.2, 1.1, 0.9, -1.5, 0.0]


def accepted(rewards, beta: float, count: int, seed: int = 0) -> list[int]:
    uniform = random.Random(seed).random
    return rejection_sample(rewards, beta=beta, count=count, uniform=uniform).indices


def test_a_low_temperature_takes_the_best_and_a_high_one_the_first() -> None:
    assert accepted(REWARDS, 1e-6, 3) == [2, 3, 0]
    assert accepted(REWARDS, 1e9, 3) == [0, 1, 2]


def test_the_best_is_recomputed_in_every_pass_so_that_every_pass_accepts_one() -> None:
    """With one maximum for all passes this would all but never end."""
    found = rejection_sample([0.0, -500.0, -1000.0], beta=1.0, count=3, uniform=random.Random(0).random)
    assert found.indices == [0, 1, 2]
    assert found.passes == 3
    assert found.draws == 3 + 2 + 1


def test_a_constant_added_to_all_rewards_changes_nothing() -> None:
    shifted = [reward + 8 for reward in REWARDS]
    assert all(accepted(REWARDS, 0.5, 4, seed) == accepted(shifted, 0.5, 4, seed) for seed in range(20))


def test_accepted_samples_follow_the_tilted_policy() -> None:
    policy, rewards, beta = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 0.6, 1.0]), 0.8
    numbers, generator, counts = random.Random(1), torch.Generator().manual_seed(1), torch.zeros(3)
    for _ in range(3000):
        drawn = torch.multinomial(policy, 24, replacement=True, generator=generator)
        found = rejection_sample(rewards[drawn].tolist(), beta=beta, count=1, uniform=numbers.random)
        counts[drawn[found.indices[0]]] += 1
    expected = (policy * (rewards / beta).exp()) / (policy * (rewards / beta).exp()).sum()
    statistic = ((counts - 3000 * expected) ** 2 / (3000 * expected)).sum()
    # two degrees of freedom: 13.8 is exceeded once in a thousand times
    assert float(statistic) < 13.8


@pytest.mark.parametrize(
    ("options", "message"), [({"beta": 0.0}, "beta is 0.0"), ({"count": 7}, "count is 7")]
)
def test_mistakes_are_named(options, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        rejection_sample(REWARDS, uniform=lambda: 0.0, **{"beta": 1.0, "count": 1, **options})


def test_several_steps_end_where_one_does_and_reject_less_at_each() -> None:
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    policy = torch.tensor([0.1, 0.3, 0.05, 0.2, 0.25, 0.1], dtype=torch.float64)
    steps, (once,) = (tempered(rewards, policy, eta=0.4, steps=count) for count in (5, 1))
    torch.testing.assert_close(steps[-1].distribution, once.distribution)
    assert all(step.rate >= once.rate for step in steps)
    product = torch.tensor([step.rate for step in steps], dtype=torch.float64).prod()
    assert float(product) == pytest.approx(once.rate)
    assert float(acceptance(rewards, 0.4).max()) == 1


def test_a_rankers_even_odds_are_a_reward_of_zero() -> None:
    torch.testing.assert_close(
        reward_from_ranker(torch.tensor([0.5, 0.7310585786])), torch.tensor([0.0, 1.0])
    )


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_no_finite_number_is_refused_and_not_drawn_for_ever(reward: float) -> None:
    with pytest.raises(PreferoError, match="the reward of candidate 2 is"):
        accepted([0.0, reward, 1.0], 0.5, 3)
