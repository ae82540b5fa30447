"""Dynamic target margins: the inner problem, its memory, and what has no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prefero.objectives import PreferenceBatch
from prefero.objectives.presets.robust import JOINTLY, REMEMBERED, DynamicMargin
from tests.objectives.batches import build, pair_batch, slope_of


def gaps(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noisy(margins: list[float], noise: float = 0.5) -> PreferenceBatch:
    column = torch.full((len(margins),), noise / max(len(margins), 1), dtype=torch.float64)
    return pair_batch(margins, [0.0] * len(margins), {"pair_noise": column})


def test_margins_worked_out_by_hand() -> None:
    found = DynamicMargin(1.0, 2.0, 20).solved(gaps(-2.0, -0.5, 0.0, 0.5, 2.0))
    expected = gaps(0.872, 0.934, 0.973, 1.022, 1.198)
    torch.testing.assert_close(found, expected, atol=6e-4, rtol=0)


def test_the_inner_problem_is_solved() -> None:
    """p ∝ exp(−(γ₀/τ) σ(γ − r)): where a wrong sign would make confident pairs' targets smaller."""
    margins, gamma, tau = gaps(-3.0, 0.1, 0.2, 1.0, 4.0), 1.5, 0.7
    found = DynamicMargin(gamma, tau, 500).solved(margins)
    shares = (-(gamma / tau) * torch.sigmoid(found - margins)).softmax(0)
    torch.testing.assert_close(found, gamma * len(margins) * shares)
    assert (found.diff() > 0).all()
    assert float(found.mean()) == pytest.approx(gamma)


def test_equal_margins_have_the_one_target() -> None:
    torch.testing.assert_close(DynamicMargin(0.8, 3.0, 20).solved(gaps(1.0, 1.0, 1.0)), gaps(0.8, 0.8, 0.8))


def test_the_targets_have_no_gradient() -> None:
    objective = build("gamma_dpo", beta=0.5, tau=0.5).eval()
    batch = noisy([0.5, -1.0, 2.0])
    target = objective.target(objective.comparisons(batch))[:, 0]
    slope = slope_of(objective.loss(batch), batch)[:, 0, 0]
    margins = 0.5 * gaps(0.5, -1.0, 2.0)
    torch.testing.assert_close(slope, -0.5 * torch.sigmoid(target - margins) / 3)
    assert float(target.mean()) == pytest.approx(0, abs=1e-12), "shifted to a mean of 0"


def test_a_step_meets_the_steps_before_it_and_not_itself() -> None:
    """A step that joined the queue before its problem is solved would count twice."""
    objective = build("gamma_dpo", beta=1.0, tau=0.5).train()
    first, second = gaps(0.5, -1.0, 2.0), gaps(3.0, 0.0)
    objective(noisy(first.tolist()))
    targets = objective.target.solved(torch.cat([second, first]))[:2] - 1.0
    expected = torch.nn.functional.softplus(targets - second).mean()
    torch.testing.assert_close(objective.loss(noisy(second.tolist())), expected)


def test_the_past_joins_and_evaluation_adds_nothing_to_it() -> None:
    objective = build("gamma_dpo", beta=1.0, tau=0.5)
    objective.train()(noisy([3.0, 4.0]))
    objective.eval()
    margin = objective.target
    before = margin.past.clone()
    comparisons = objective.comparisons(noisy([0.0, 1.0]))
    torch.testing.assert_close(margin.history(comparisons), gaps(3.0, 4.0))
    together = margin.solved(gaps(0.0, 1.0, 3.0, 4.0))[:2] - 1.0
    torch.testing.assert_close(margin(comparisons)[:, 0], together)
    assert torch.equal(before, margin.past)


def test_the_past_is_a_queue_that_forgets() -> None:
    objective = build("gamma_dpo", beta=1.0).train()
    size = 500
    for step in range(6):
        objective(noisy([float(step)] * size))
    margin = objective.target
    assert float(margin.kept) == REMEMBERED
    assert margin.past.unique().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert int((margin.past == 1.0).sum()) == REMEMBERED - 4 * size


def test_every_past_margin_is_as_likely_to_join_as_any_other() -> None:
    objective = build("gamma_dpo", beta=1.0).eval()
    margin = objective.target
    kept = 1000
    margin.past[-kept:] = torch.arange(kept).double()
    margin.kept.fill_(kept)
    counts = torch.zeros(kept)
    draws = 2000
    for draw in range(draws):
        joined = margin.history(objective.comparisons(noisy([0.0] * 6, (draw + 0.5) / draws)))
        assert len(joined) == JOINTLY - 6 == len(joined.unique())
        counts[joined.long()] += 1
    torch.testing.assert_close(counts / draws, torch.full((kept,), (JOINTLY - 6) / kept), atol=2e-3, rtol=0)


def test_a_pair_that_is_absent_neither_joins_nor_stays() -> None:
    objective = build("gamma_dpo", beta=1.0).train()
    batch = noisy([1.0, 50.0, 2.0])
    batch.models["policy"].mask[1, 1] = False
    objective(batch)
    margin = objective.target
    assert float(margin.kept) == 2
    assert margin.past[-2:].tolist() == [1.0, 2.0]


def test_pairs_that_look_mislabelled_get_smaller_targets() -> None:
    margins = gaps(*[1.0, 1.5, 2.0, 2.5] * 4, -1.5, -2.0)
    found = DynamicMargin(1.0, 1.0, 20).solved(margins)
    assert float(found[-2:].max()) < float(found[:-2].min())
