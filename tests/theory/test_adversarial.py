from __future__ import annotations

import torch

from prefero.theory.games import adversarial_critic, adversarial_path, critic_loss

UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64)
ONE_PAIR = torch.tensor([[0, 8, 0], [2, 0, 0], [0, 0, 0]], dtype=torch.float64)
"""0 beat 1 eight times out of ten; nobody met 2."""


def test_no_other_critic_within_the_bounds_has_a_smaller_loss() -> None:
    numbers = torch.Generator().manual_seed(0)
    for seed in range(5):
        wins = torch.rand(4, 4, generator=numbers.manual_seed(seed), dtype=torch.float64).fill_diagonal_(0)
        policy = torch.rand(4, generator=numbers, dtype=torch.float64).softmax(0)
        critic = adversarial_critic(policy, wins, 20.0, 2.0)
        best = critic_loss(critic, policy, wins, 20.0)
        noise = 0.2 * torch.randn(200, 4, generator=numbers, dtype=torch.float64)
        for other in (critic + noise).clamp(0, 2):
            assert critic_loss(other, policy, wins, 20.0) >= best - 1e-9


def test_a_strong_fit_is_bradley_and_terrys() -> None:
    critic = adversarial_critic(UNIFORM, ONE_PAIR, 1e4, 5.0)
    torch.testing.assert_close(critic[0] - critic[1], torch.tensor(4.0).double().log(), atol=1e-2, rtol=0)


def test_what_was_never_compared_is_worth_nothing_and_is_left() -> None:
    path = adversarial_path(UNIFORM, ONE_PAIR, weight=20.0, eta=1.0, bound=2.0, rounds=8)
    assert (path.critics[:, 2] == 0).all()
    assert path.policies[-1].argmax() == 0
    assert (path.policies[1:, 2] < path.policies[0, 2]).all()
    torch.testing.assert_close(path.mixture.sum(), torch.ones((), dtype=torch.float64))


def test_without_comparisons_nothing_moves() -> None:
    path = adversarial_path(UNIFORM, torch.zeros_like(ONE_PAIR), weight=20.0, eta=1.0, rounds=2)
    torch.testing.assert_close(path.policies[-1], UNIFORM)
