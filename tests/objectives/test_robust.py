"""Dr. DPO, group robustness, DPO-Positive, WPO and TODO: numbers of their papers, and what must hold."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.errors import PreferoError
from prefero.objectives import Compare, PreferenceBatch, TokenLogps, from_config, log_ratio
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED
from prefero.objectives.slots import wpo
from tests.objectives.batches import batch_for, build, pair_batch, slope_of

DOUBLE = torch.float64


def margin_of(loss: float) -> float:
    """The margin at which the logistic loss has this value."""
    return -math.log(math.expm1(loss))


def test_dr_dpo_worked_out_by_hand() -> None:
    """The other sign, worst-case robustness, gives 1.41 and weighs the lossy pair more."""
    batch = pair_batch([margin_of(0.2), margin_of(2.0)], [0.0, 0.0])
    loss = build("dr_dpo", beta=1.0, beta_prime=1.0).loss(batch)
    assert loss.item() == pytest.approx(0.7401, abs=1e-4)
    plain = build("dpo", beta=1.0)(batch)[0].values
    each = torch.autograd.grad(plain.sum(), batch.models["policy"].logps)[0][:, 0, 0]
    weights = slope_of(build("dr_dpo", beta=1.0).loss(batch), batch)[:, 0, 0] / each
    torch.testing.assert_close(weights, torch.tensor([0.8581, 0.1419], dtype=DOUBLE), atol=1e-4, rtol=0)
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("beta_prime", [1e-3, 0.3, 30.0])
def test_dr_dpo_of_equal_losses_is_that_loss(beta_prime: float) -> None:
    batch = pair_batch([0.7] * 4, [0.0] * 4)
    expected = build("dpo", beta=1.0).loss(batch)
    torch.testing.assert_close(build("dr_dpo", beta=1.0, beta_prime=beta_prime).loss(batch), expected)


def test_dr_dpo_goes_to_the_smallest_loss_not_the_largest() -> None:
    batch = pair_batch([2.0, -2.0, 0.0], [0.0] * 3)
    losses = build("dpo", beta=1.0)(batch)[0].values
    loss = build("dr_dpo", beta=1.0, beta_prime=1e-3).loss(batch)
    assert loss.item() == pytest.approx(losses.min().item(), abs=5e-3)


def test_a_flipped_pair_among_clean_ones_weighs_less_than_its_share() -> None:
    batch = pair_batch([2.0, 1.5, 2.5, -2.0], [0.0] * 4)
    pull = {key: slope_of(build(key, beta=1.0).loss(batch), batch)[3, 0, 0] for key in ("dpo", "dr_dpo")}
    assert abs(pull["dr_dpo"]) < abs(pull["dpo"]) / 4


def test_dr_dpo_over_micro_batches_is_the_mean_of_theirs() -> None:
    margins = [2.0, -2.0, 0.0, 1.0, -0.5]
    whole = pair_batch(margins, [0.0] * 5)
    loss = build("dr_dpo", beta=1.0, beta_prime=0.5, micro_batch=2).loss(whole)
    alone = build("dr_dpo", beta=1.0, beta_prime=0.5)
    parts = [pair_batch(part, [0.0] * len(part)) for part in (margins[:2], margins[2:4], margins[4:])]
    torch.testing.assert_close(loss, torch.stack([alone.loss(part) for part in parts]).mean())
    assert not torch.isclose(loss, alone.loss(whole))


def test_dr_dpo_over_micro_batches_of_nothing_costs_nothing() -> None:
    batch = pair_batch([1.0], [0.0])
    models = {name: TokenLogps(one.logps, torch.zeros_like(one.mask)) for name, one in batch.models.items()}
    empty = PreferenceBatch(models)
    loss = build("dr_dpo", micro_batch=2).loss(empty)
    assert loss == 0
    leaf = batch.models["policy"].logps
    (slope,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    assert slope is None or torch.equal(slope, torch.zeros_like(slope))


def grouped(margins: list[float], groups: list[int]) -> PreferenceBatch:
    return pair_batch(margins, [0.0] * len(margins), {"group": torch.tensor(groups)})


def test_group_means_of_uniform_weights() -> None:
    """The mean over pairs would weigh the larger group more."""
    margins, groups = [1.0, 2.0, 3.0, -1.0], [0, 0, 0, 1]
    batch = grouped(margins, groups)
    objective = build("group_robust", counts=[3, 1], step_size=0.0, normalisation="group_mean")
    losses = build("dpo")(batch)[0].values
    torch.testing.assert_close(objective.loss(batch), (losses[:3].mean() + losses[3]) / 2)


def test_group_counts_that_are_counted_become_those_that_are_given() -> None:
    """After a whole pass the two have the same loss, and the same weights had the step size been 0."""
    batch = grouped([1.0, 2.0, 3.0, -1.0, 0.5, 0.2], [0, 0, 0, 1, 2, 0])
    given = build("group_robust", counts=[4, 1, 1], step_size=0.0)
    counted = build("group_robust", step_size=0.0).train()
    for _ in range(3):
        loss = counted.loss(batch)
    torch.testing.assert_close(loss, given.loss(batch))
    torch.testing.assert_close(counted.eval().loss(batch), given.eval().loss(batch))
    assert counted.reduce.counts[:4].tolist() == [12, 3, 3, 0]


def test_evaluation_counts_no_pairs_and_needs_none() -> None:
    batch = grouped([1.0, -1.0], [5, 7])
    objective = build("group_robust", normalisation="group_mean").eval()
    losses = build("dpo")(batch)[0].values
    torch.testing.assert_close(objective.loss(batch), losses.mean())
    assert objective.reduce.counts.sum() == 0


def test_a_group_that_comes_late_has_the_weight_that_it_would_have_kept() -> None:
    arguments = {"step_size": 0.7, "normalisation": "group_mean"}
    early = build("group_robust", counts=[1, 1, 1], **arguments).train()
    late = build("group_robust", **arguments).train()
    for objective in (early, late):
        for margin in (-2.0, 1.0):
            objective(grouped([margin, 0.3], [0, 1]))
        objective(grouped([0.1, -0.4, 1.0], [0, 1, 2]))
    sizes = torch.ones(3).double()
    found = late.reduce.q(torch.cat([sizes, torch.zeros(61).double()]))
    torch.testing.assert_close(found[:3], early.reduce.q(sizes))
    assert torch.equal(found[3:], torch.zeros(61).double())


def test_importance_weights_are_a_start_that_does_not_move() -> None:
    """q ∝ 1/N_g, and total_count's N/N_g besides."""
    objective = build("group_robust", counts=[8, 2], step_size=0.0, start="inverse_count")
    batch = grouped([0.5, -0.5], [0, 1])
    losses = build("dpo")(batch)[0].values
    expected = 0.2 * 10 / 8 * losses[0] + 0.8 * 10 / 2 * losses[1]
    torch.testing.assert_close(objective.train().loss(batch), expected)
    torch.testing.assert_close(objective.loss(batch), expected)


def test_a_trade_off_of_nothing_keeps_the_weights_uniform() -> None:
    batch = grouped([0.5, -5.0], [0, 1])
    arguments = {"counts": [1, 1], "normalisation": "group_mean"}
    never = build("group_robust", step_size=3.0, trade_off=0.0, **arguments).train()
    still = build("group_robust", step_size=0.0, **arguments).train()
    for _ in range(5):
        torch.testing.assert_close(never.loss(batch), still.loss(batch))
    half = build("group_robust", step_size=3.0, trade_off=0.5, **arguments).train()
    for _ in range(50):
        half(batch)
    losses = build("dpo")(batch)[0].values
    torch.testing.assert_close(
        half.eval().loss(batch), 0.25 * losses[0] + 0.75 * losses[1], rtol=1e-4, atol=0
    )


def test_an_adjustment_lifts_small_groups() -> None:
    arguments = {"counts": [100, 1], "normalisation": "group_mean", "step_size": 1.0}
    objective = build("group_robust", adjustment=2.0, **arguments).train()
    objective(grouped([0.0, 0.0], [0, 1]))
    q = objective.reduce.q(objective.reduce.counts)
    assert (q[1] / q[0]).log().item() == pytest.approx(2.0 - 0.2)


def test_too_many_groups_to_count_are_named() -> None:
    with pytest.raises(PreferoError, match="a group 64, but without counts there may be 64 groups: renumber"):
        build("group_robust").loss(grouped([0.0], [64]))


def test_the_worst_group_can_be_put_into_any_method() -> None:
    slot = {"worst_group": {"counts": [3, 1], "normalisation": "group_mean"}}
    combined = from_config({"method": "simpo", "reduce": slot}).double().eval()
    batch = grouped([1.0, 2.0, 3.0, -1.0], [0, 0, 0, 1])
    losses = build("simpo")(batch)[0].values
    torch.testing.assert_close(combined.loss(batch), (losses[:3].mean() + losses[3]) / 2)


def test_dpop_is_dpo_while_no_chosen_response_got_less_likely() -> None:
    """A penalty per token would see the token that fell."""
    ratios = torch.tensor([[[-1.0, 1.5], [0.3, -2.0]]], dtype=DOUBLE)
    mask = torch.ones_like(ratios, dtype=torch.bool)
    models = {
        "policy": TokenLogps(ratios - 3, mask),
        "reference": TokenLogps(torch.zeros_like(ratios) - 3, mask),
    }
    batch = PreferenceBatch(models)
    torch.testing.assert_close(
        build("dpop", beta=0.1, lam=500.0).loss(batch), build("dpo", beta=0.1).loss(batch)
    )


def test_dpop_never_costs_less_than_dpo() -> None:
    batch = batch_for(build("dpop"), spread=5.0)
    (penalised,), (plain,) = build("dpop", beta=0.3)(batch), build("dpo", beta=0.3)(batch)
    assert (penalised.values >= plain.values).all()
    assert (penalised.values > plain.values).any()


def written(*distributions: list[list[float]]) -> PreferenceBatch:
    """Pairs whose every token has a whole distribution; the first entry is the token's own."""
    p = torch.tensor(distributions, dtype=DOUBLE)
    mask = torch.ones(p.shape[:3], dtype=torch.bool)
    signals = {
        LOG_SUM_P_SQUARED: p.square().sum(-1).log(),
        LOG_MAX_P: p.amax(-1).log(),
    }
    return PreferenceBatch({"policy": TokenLogps(p[..., 0].log(), mask, signals)})


def weight(batch: PreferenceBatch, **arguments) -> torch.Tensor:
    reward = Compare(log_ratio("policy", "policy").sum())
    return wpo(**arguments)(reward.comparisons(batch))[:, 0]


def test_wpo_weighs_what_the_policy_would_write_by_one() -> None:
    uniform, sure = [[0.25, 0.25, 0.25, 0.25]] * 2, [[1.0, 0.0, 0.0, 0.0]] * 2
    torch.testing.assert_close(weight(written([uniform, sure])), torch.ones(1, dtype=DOUBLE))
    greedy = [[0.7, 0.1, 0.1, 0.1]] * 2
    torch.testing.assert_close(
        weight(written([greedy, greedy]), alignment="greedy"), torch.ones(1, dtype=DOUBLE)
    )


def test_wpos_weight_of_a_response_is_not_monotone_in_its_probability() -> None:
    sure = [[1.0, 0.0]]
    found = [weight(written([[[p, 1 - p]], sure]), clamp=None).item() for p in (0.9, 0.7)]
    assert found == pytest.approx([1.098, 1.207], abs=1e-3)


def test_wpo_clamps_the_product_of_the_two_weights() -> None:
    likely, unlikely = [[0.7, 0.2, 0.1]], [[0.2, 0.7, 0.1]]
    assert weight(written([likely, likely]), clamp=None).item() == pytest.approx(1.296**2, abs=2e-3)
    assert weight(written([likely, likely])).item() == 1
    assert weight(written([unlikely, likely])).item() == pytest.approx(0.3704 * 1.296, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_todo_without_ties_is_dpo_with_a_margin(alpha: float) -> None:
    batch = pair_batch([0.4, -1.0, 3.0], [0.0] * 3, {"tie": torch.zeros(3, dtype=torch.bool)})
    offset = Compare(0.2 * log_ratio().sum(), target=alpha)
    torch.testing.assert_close(build("todo", beta=0.2, alpha=alpha).loss(batch), offset.loss(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tie", [True, False])
def test_todo_stays_finite_far_away(dtype: torch.dtype, tie: bool) -> None:
    logps = torch.tensor([[[1000.0], [0.0]], [[0.0], [1000.0]]], dtype=dtype, requires_grad=True)
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    models = {"policy": TokenLogps(logps, mask), "reference": TokenLogps(torch.zeros_like(logps), mask)}
    batch = PreferenceBatch(models, {"tie": torch.full((2,), tie)})
    loss = build("todo", beta=1.0).to(dtype).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()
