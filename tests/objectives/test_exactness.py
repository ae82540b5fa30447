"""What an objective says about decomposing over micro-batches is true of its gradients, far from the
start."""

from __future__ import annotations

import copy

import pytest
import torch

from prefero.objectives import PreferenceBatch, dry_run
from tests.objectives.batches import KEYS, batch_for, build, slopes, taken

PARTS = ([0, 3, 4], [5], [1, 2])


def in_parts(objective, batch: PreferenceBatch) -> torch.Tensor:
    """The loss as a trainer makes it of micro-batches: totals over the counts of the whole step."""
    parts = [objective(taken(batch, part)) for part in PARTS]
    counts = [sum(term.count for term in terms) for terms in zip(*parts, strict=True)]
    totals = [sum(term.total for term in terms) for terms in zip(*parts, strict=True)]
    return sum(total / count.clamp(min=1) for total, count in zip(totals, counts, strict=True))


def whole(objective, batch: PreferenceBatch) -> torch.Tensor:
    return objective.loss(batch)


SPREADS = (20.0, 20.0, 20.0, 2.0)
"""Far from the start, and near enough for losses that are straight lines out there."""


def largest_difference(key: str, seed: int, spread: float) -> float:
    objective = build(key)
    batch = batch_for(objective, spread=spread, seed=seed)
    pairs = zip(
        slopes(whole(copy.deepcopy(objective), batch), batch),
        slopes(in_parts(copy.deepcopy(objective), batch), batch),
        strict=True,
    )
    return max(float((a - b).abs().max() / (a.abs().max() + 1e-12)) for a, b in pairs)


@pytest.mark.parametrize("key", KEYS)
def test_exactness_is_what_the_gradients_show(key: str) -> None:
    differences = [largest_difference(key, seed, spread) for seed, spread in enumerate(SPREADS)]
    if dry_run(build(key)).exact:
        assert max(differences) < 1e-10
    else:
        assert max(differences) > 1e-3, "declared inexact, and yet it decomposes"


@pytest.mark.parametrize("key", KEYS)
def test_exact_counts_do_not_depend_on_what_the_models_gave(key: str) -> None:
    objective = build(key)
    first, second = (batch_for(objective, spread=spread, seed=3) for spread in (0.0, 30.0))
    for before, after, term in zip(
        objective.counts(first), objective.counts(second), objective(second), strict=True
    ):
        if term.exact:
            assert torch.equal(before, after)
            assert torch.equal(before, term.count)


@pytest.mark.parametrize("key", KEYS)
def test_counting_moves_no_state(key: str) -> None:
    objective = build(key).train()
    before = copy.deepcopy(objective.state_dict())
    objective.counts(batch_for(objective))
    dry_run(objective)
    assert objective.training
    assert all(torch.equal(before[name], now) for name, now in objective.state_dict().items())
