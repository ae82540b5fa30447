"""Running state: moves once per optimizer step, in training only, and survives a checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefero.objectives import Objective, from_config
from tests.objectives.batches import KEYS, batch_for, build, pair_batch, slope_of

STATEFUL = [key for key in KEYS if any(True for _ in build(key).buffers())]


def moved(objective: Objective, calls: int = 1) -> dict[str, torch.Tensor]:
    for seed in range(calls):
        objective(batch_for(objective, spread=5.0, seed=seed))
    return copy.deepcopy(objective.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_which_methods_have_state() -> None:
    assert {"beta_dpo", "group_robust"} <= set(STATEFUL)
    assert "dpo" not in STATEFUL


@pytest.mark.parametrize("key", STATEFUL)
def test_training_moves_the_state_and_evaluation_does_not(key: str) -> None:
    objective = build(key)
    start = copy.deepcopy(objective.state_dict())
    assert same(start, moved(objective.eval()))
    assert not same(start, moved(objective.train()))


@pytest.mark.parametrize("key", STATEFUL)
def test_the_state_survives_safetensors(key: str, tmp_path: Path) -> None:
    first, second = build(key).train(), build(key).train()
    moved(first, calls=3)
    save_file(first.state_dict(), tmp_path / "objective.safetensors")
    second.load_state_dict(load_file(tmp_path / "objective.safetensors"))
    batch = batch_for(first, spread=5.0, seed=9)
    one, other = first.loss(batch), second.loss(batch)
    assert torch.equal(one, other)
    assert torch.equal(slope_of(one, batch), slope_of(other, batch))
    assert same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("key", STATEFUL)
def test_state_is_floating_point(key: str) -> None:
    assert all(value.is_floating_point() for value in build(key).state_dict().values())


def test_a_weight_or_a_penalty_keeps_the_state_in_one_place(tmp_path: Path) -> None:
    objective = from_config({"method": "beta_dpo", "weight": "wpo", "plus": {"nll": 0.1}})
    save_file(objective.state_dict(), tmp_path / "objective.safetensors")
    assert len(objective.state_dict()) == 2
    before = copy.deepcopy(objective.state_dict())
    assert not same(before, moved(objective.double().train()))


def test_beta_dpo_moves_its_statistics_before_it_uses_them() -> None:
    objective = build("beta_dpo", beta=0.1, alpha=0.6, keep=1.0, momentum=0.9).train()
    batch = pair_batch([1.0, 3.0], [0.0, 0.0], {"pair_noise": torch.tensor([0.2, 0.7]).double()})
    (term,) = objective(batch)
    scale = objective.scale
    assert float(scale.center) == pytest.approx(0.1 * 2.0, rel=1e-12)
    assert float(scale.spread) == pytest.approx(0.1 * 2.0**0.5, rel=1e-12)
    beta = 0.1 * (1 + 0.6 * (2.0 - 0.2))
    expected = -torch.nn.functional.logsigmoid(beta * torch.tensor([1.0, 3.0]).double())
    torch.testing.assert_close(term.values, expected)


def test_beta_dpo_gives_no_gradient_to_pairs_it_leaves_out_nor_through_beta() -> None:
    noise = torch.tensor([0.999999, 1e-9, 0.999999, 0.999999, 0.999999]).double()
    batch = pair_batch([0.5, 1.0, 0.7, 0.2, 0.9], [0.0] * 5, {"pair_noise": noise})
    objective = build("beta_dpo", keep=0.8).train()
    loss = objective.loss(batch)
    slope = slope_of(loss, batch)[..., 0]
    assert torch.equal(slope[1], torch.zeros(2).double())
    scale = objective.scale
    comparisons = objective.comparisons(batch)
    beta, margins = float(scale(comparisons)), comparisons.margins[:, 0].detach()
    expected = -beta * torch.sigmoid(-beta * margins) / 4
    kept = [0, 2, 3, 4]
    torch.testing.assert_close(slope[kept, 0], expected[kept])
    torch.testing.assert_close(slope[kept, 1], -expected[kept])


def test_beta_dpo_leaves_an_outlier_out() -> None:
    objective = build("beta_dpo", keep=0.8).train()
    objective.scale.spread.fill_(1.0)
    for seed in range(20):
        noise = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        batch = pair_batch([0.1, 0.2, 60.0, 0.0, 0.3], [0.0] * 5, {"pair_noise": noise})
        assert objective.scale.kept(objective.comparisons(batch))[2] == 0


@pytest.mark.parametrize("pairs", [1, 4])
def test_beta_dpo_starts_where_policy_and_reference_are_equal(pairs: int) -> None:
    """All gaps and their spread are 0 then, and a single pair has no spread at all."""
    objective = build("beta_dpo").train()
    batch = pair_batch([0.0] * pairs, [0.0] * pairs, {"pair_noise": torch.linspace(0.1, 0.9, pairs).double()})
    loss = objective.loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()
    assert all(value.isfinite() for value in objective.state_dict().values())


def test_beta_rises_with_the_gap_and_never_falls_below_its_minimum() -> None:
    def beta(gap: float) -> float:
        objective = build("beta_dpo", beta=0.1, alpha=0.6).eval()
        objective.scale.center.fill_(1.0)
        return float(objective.scale(objective.comparisons(pair_batch([gap], [0.0]))))

    assert beta(3.0) > 0.1 > beta(0.5) > beta(-100.0) == pytest.approx(1e-3)


def test_group_weights_climb_towards_the_group_that_fares_worse() -> None:
    """q = (½, ½), L = (1, 2), step 1: q = (0.2689, 0.7311)."""
    objective = build("group_robust", counts=[5, 5], normalisation="group_mean", step_size=1.0).train()
    batch = pair_batch([0.0, 0.0], [0.0, 0.0], {"group": torch.tensor([0, 1])})
    objective.reduce(torch.tensor([[1.0], [2.0]]).double(), objective.comparisons(batch))
    torch.testing.assert_close(
        objective.reduce.log_q.exp(), torch.tensor([0.2689414, 0.7310586]).double(), atol=1e-6, rtol=0
    )


def test_group_weights_stay_on_the_simplex() -> None:
    objective = build("group_robust", counts=[30, 20, 10], step_size=1.0).train()
    batch = batch_for(objective, spread=50.0)
    for _ in range(300):
        objective(batch)
    weights = objective.reduce.log_q.exp()
    assert weights.isfinite().all()
    assert float(weights.sum()) == pytest.approx(1.0)


def test_no_gradient_flows_through_the_group_weights() -> None:
    objective = build("group_robust", step_size=0.3).train()
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    # the weights have moved; in evaluation they are constants
    torch.testing.assert_close(slope, slope_of(objective.eval().loss(batch), batch))


def test_doubling_a_groups_size_scales_its_pairs_with_total_count() -> None:
    """A pair of group g weighs q_g N/N_g."""
    slopes = []
    for counts in ([30, 20, 10], [30, 20, 20]):
        objective = build("group_robust", counts=counts).eval()
        batch = batch_for(objective)
        slopes.append(slope_of(objective.loss(batch), batch)[batch.columns["group"] == 2])
    assert len(slopes[0])
    torch.testing.assert_close(slopes[1], slopes[0] * (60 + 10) / (2 * 60))
