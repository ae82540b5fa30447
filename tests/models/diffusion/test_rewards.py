"""Rewards through the sampler, and attention to users."""

from __future__ import annotations

import torch
from torch import Tensor

from prefero.models.diffusion.rewards import renoised, sampled
from prefero.models.diffusion.users import decoupled_attention
from tests.models.diffusion.test_scoring import randn

LEVELS = torch.tensor([0.999, 0.9, 0.6, 0.3, 0.08], dtype=torch.float64)


def noise_model(theta: Tensor):
    return lambda state, place: torch.tanh(theta * state)


def slope(last: int | None, *, of_start: bool = False) -> Tensor | None:
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    start = randn(3, 4).requires_grad_()
    reward = -sampled(start, LEVELS, noise_model(theta), last=last).square().mean()
    return torch.autograd.grad(reward, start if of_start else theta, allow_unused=True)[0]


def test_the_gradient_of_all_steps_is_that_of_finite_differences() -> None:
    def reward(theta: float) -> float:
        model = noise_model(torch.tensor(theta, dtype=torch.float64))
        return -sampled(randn(3, 4), LEVELS, model).square().mean().item()

    numeric = (reward(0.3 + 1e-6) - reward(0.3 - 1e-6)) / 2e-6
    torch.testing.assert_close(slope(None), torch.tensor(numeric, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(slope(5), slope(None))


def test_fewer_steps_leave_the_start_and_the_steps_before_without_a_gradient() -> None:
    assert slope(4, of_start=True) is None and slope(None, of_start=True) is not None
    kept = []

    def watched(state: Tensor, place: int) -> Tensor:
        kept.append((place, torch.is_grad_enabled()))
        return state

    sampled(randn(3, 4), LEVELS, watched, last=2)
    assert kept == [(4, False), (3, False), (2, False), (1, True), (0, True)]
    with torch.no_grad():
        assert not sampled(randn(3, 4).requires_grad_(), LEVELS, watched).requires_grad


def test_images_that_are_noised_again_pass_no_gradient_to_what_they_were() -> None:
    data, drawn = randn(3, 4).requires_grad_(), randn(3, 4, seed=1)
    again = renoised(data, LEVELS, lambda state, place: drawn, drawn)
    torch.testing.assert_close(again, data.detach())
    assert not again.requires_grad


def attention(scale: float = 1.0, values: float = 1.0) -> Tensor:
    query, key, value = (randn(2, 3, 4, seed=seed) for seed in range(3))
    user_key, user_value = (randn(2, 2, 4, seed=seed) for seed in (3, 4))
    return decoupled_attention(query, key, value, user_key, values * user_value, scale)


def test_user_values_of_zero_and_a_scale_of_zero_leave_the_attention_to_the_text() -> None:
    text = attention(scale=0.0)
    torch.testing.assert_close(attention(values=0.0), text)
    torch.testing.assert_close(attention(scale=2.0) - text, 2 * (attention() - text))
    assert (attention() != text).all()
