from __future__ import annotations

import pytest
import torch

from prefero.theory.rewards import penalised_weights


def comparisons(count: int, weights: torch.Tensor) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(0)
    some = torch.randn(count, len(weights), generator=numbers, dtype=torch.float64)
    wins = torch.rand(count, generator=numbers, dtype=torch.float64) < torch.sigmoid(some @ weights)
    return torch.where(wins[:, None], some, -some)


def test_without_a_penalty_it_is_the_likelihoods_maximum() -> None:
    rows = comparisons(400, torch.tensor([1.0, -0.5, 0.0]).double())
    found = penalised_weights(rows)
    slope = torch.sigmoid(-rows @ found) @ rows
    assert float(slope.abs().max()) < 1e-6


def test_the_lasso_leaves_out_what_does_not_matter_and_ridge_does_not() -> None:
    truth = torch.zeros(30, dtype=torch.float64)
    truth[:2] = torch.tensor([2.0, -2.0])
    rows = comparisons(150, truth)
    sparse, dense = penalised_weights(rows, lasso=0.05), penalised_weights(rows, ridge=0.05)
    assert int((sparse != 0).sum()) < 12 < int((dense != 0).sum())
    assert bool((sparse[:2] != 0).all())
    # the conditions for the smallest: slopes of size λ where w is not 0, at most λ elsewhere
    slope = torch.sigmoid(-rows @ sparse) @ rows / len(rows)
    torch.testing.assert_close(
        slope[sparse != 0].abs(), torch.full_like(slope[sparse != 0], 0.05), atol=1e-8, rtol=0
    )
    assert float(slope.abs().max()) == pytest.approx(0.05, abs=1e-8)
    torch.testing.assert_close(
        torch.sigmoid(-rows @ dense) @ rows / len(rows), 0.05 * dense, atol=1e-8, rtol=0
    )
