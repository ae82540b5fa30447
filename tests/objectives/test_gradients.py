"""Which way each method pulls, how hard, and what it must not differentiate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.objectives import PreferenceBatch, dry_run, from_config
from tests.objectives.batches import KEYS, batch_for, build, leaves, pair_batch, slope_of, slopes

PAIRWISE = [
    key
    for key in KEYS
    if set(dry_run(build(key)).roles) == {"chosen", "rejected"} and key not in ("rpo_relative", "nll")
]
MATCHED = {
    "ipo",
    "exo_pref",
    "sppo",
    "dno",
    "inpo_nash",
    "online_ipo",
    "fspo",
    "mcts_dpo",
    "mappo_ipo",
    "gpo",
}
"""They regress the margin on a target, and push back beyond it."""

TURNING = {"apo_down", "aql", "dbaql", "discopop"}
"""They let some likelihood or margin go the other way, and mean to."""


STATES_ALONE = {"gpm"}
"""They read states of the policy, and no likelihood."""


@pytest.mark.parametrize("key", sorted(set(PAIRWISE) - MATCHED - TURNING - STATES_ALONE))
def test_a_losing_pair_is_pulled_apart(key: str) -> None:
    objective = build(key)
    batch = batch_for(objective, seed=2)
    if "tie" in batch.columns:
        batch.columns["tie"].zero_()
    if "score" in batch.columns:
        batch.columns["score"][:] = torch.tensor([3.0, 1.0])
    slope = slope_of(objective.loss(batch), batch)
    assert (slope[:, 0][batch.mask[:, 0]] <= 0).all(), "towards the chosen"
    assert (slope[:, 1][batch.mask[:, 1]] >= 0).all(), "away from the rejected"
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("key", KEYS)
def test_the_reference_gets_no_gradient_to_speak_of_and_the_policy_does(key: str) -> None:
    objective = build(key)
    batch = batch_for(objective)
    assert sum(slope.abs().sum() for slope in slopes(objective.loss(batch), batch)) > 0


DETACHED = {
    "wpo",
    "kto",
    "tdpo2",
    "ra_dpo2",
    "dpo_bmc",
    "rto",
    "beta_dpo",
    "ofs_dpo",
    "hypo",
    "dro_v",
    "oreo",
    "sr_dpo",
    "sr_ipo",
    "drpo",
    "tpo_tree",
    "sgdpo",
    "gamma_simpo",
    "gamma_dpo",
}
"""They stop gradients on purpose, which is tested below and in their family's tests."""


@pytest.mark.parametrize("key", [key for key in KEYS if key not in DETACHED])
def test_gradients_are_those_of_the_loss(key: str) -> None:
    """Finite differences."""
    objective = build(key).eval()
    batch = batch_for(objective, examples=3)
    directions = [torch.randn_like(leaf) for leaf in leaves(batch)]
    loss = objective.loss(batch)
    found = torch.autograd.grad(loss, leaves(batch), allow_unused=True)
    along = sum(
        float((slope * direction).sum())
        for slope, direction in zip(found, directions, strict=True)
        if slope is not None
    )
    step = 1e-6

    def at(sign: float) -> float:
        with torch.no_grad():
            for leaf, direction in zip(leaves(batch), directions, strict=True):
                leaf.add_(sign * step * direction)
            value = float(objective.loss(batch))
            for leaf, direction in zip(leaves(batch), directions, strict=True):
                leaf.sub_(sign * step * direction)
        return value

    assert along == pytest.approx((at(1) - at(-1)) / (2 * step), rel=2e-4, abs=1e-7)


def gradient_at(objective, margin: float, **columns: Tensor) -> float:
    batch = pair_batch([margin], [0.0], columns)
    return float(slope_of(objective.loss(batch), batch)[0, 0, 0])


def test_ipo_pushes_back_beyond_its_target() -> None:
    objective = build("ipo", tau=0.25)
    assert gradient_at(objective, 1.9) < 0
    assert gradient_at(objective, 2.0) == pytest.approx(0, abs=1e-12)
    assert gradient_at(objective, 2.1) == pytest.approx(2 * 0.1)


def test_exo_pushes_back_beyond_its_target_and_dpo_never_does() -> None:
    target = math.log(0.99 / 0.01)
    objective = build("exo_pref", beta=1.0, smoothing=0.01)
    assert gradient_at(objective, target - 0.5) < 0
    assert gradient_at(objective, target) == pytest.approx(0, abs=1e-12)
    assert gradient_at(objective, target + 0.5) > 0
    assert gradient_at(build("dpo", beta=1.0), target + 0.5) < 0


def test_cdpo_has_its_minimum_at_the_logit_of_the_label() -> None:
    objective = build("cdpo", beta=0.5, smoothing=0.1)
    assert gradient_at(objective, 2 * math.log(9)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("margin", [-3.0, 0.0, 40.0])
def test_rdpo_pulls_at_least_by_its_flip_rate(margin: float) -> None:
    objective = build("rdpo", beta=0.5, flip_rate=0.2)
    weight = 1 / (1 + math.exp(0.5 * margin)) + 0.2 / 0.6
    assert gradient_at(objective, margin) == pytest.approx(-0.5 * weight)


def test_dpop_pulls_the_chosen_harder_only_while_it_is_less_likely_than_under_the_reference() -> None:
    objective = build("dpop", beta=0.1, lam=5.0)
    for ratio, factor in ((-1.0, 6.0), (0.5, 1.0), (0.0, 1.0)):
        batch = pair_batch([ratio], [-3.0])
        chosen, rejected = slope_of(objective.loss(batch), batch)[0, :, 0]
        assert float(-chosen / rejected) == pytest.approx(factor), ratio


def test_h_dpo_scales_the_pull_by_alpha() -> None:
    batch = pair_batch([0.0], [0.0])
    slope = slope_of(build("h_dpo", beta=0.5, alpha=0.8).loss(batch), batch)
    assert float(slope[0, 0, 0]) == pytest.approx(-0.8 * 0.5 / 2)


def test_odpo_pulls_harder_at_a_larger_score_gap_and_does_not_scale_the_offset_by_beta() -> None:
    objective = build("odpo", beta=0.5, alpha=1.0)
    small, large = (
        gradient_at(objective, 0.3, score=torch.tensor([[gap, 0.0]]).double()) for gap in (1.5, 6.0)
    )
    assert abs(large) > abs(small)
    offset = math.log(6.0)
    assert large == pytest.approx(-0.5 / (1 + math.exp(0.5 * 0.3 - offset)))


def test_todo_pulls_ties_together() -> None:
    objective, tie = build("todo", beta=1.0), torch.tensor([True])
    assert gradient_at(objective, 1.0, tie=tie) > 0
    assert gradient_at(objective, 0.0, tie=tie) == pytest.approx(0, abs=1e-12)
    assert gradient_at(objective, -1.0, tie=tie) < 0


def test_ld_dpo_pulls_tail_tokens_alpha_as_hard() -> None:
    objective = build("ld_dpo", alpha=0.25)
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    shorter = batch.lengths.min(1).values
    tails = 0
    for e in range(len(slope)):
        for r in range(2):
            for t in range(int(shorter[e]), int(batch.lengths[e, r])):
                assert float(slope[e, r, t] / slope[e, r, 0]) == pytest.approx(0.25)
                tails += 1
    assert tails


def test_wpo_weighs_gradients_and_does_not_differentiate_its_weight() -> None:
    objective = build("wpo", beta=0.3)
    batch = batch_for(objective)
    (weighted,), (plain,) = objective(batch), build("dpo", beta=0.3)(batch)
    weight = (weighted.values / plain.values).detach()
    slope = slope_of(objective.loss(batch), batch)
    expected = slope_of((weight * plain.values).mean(), batch)
    torch.testing.assert_close(slope, expected)
    signals = batch.models["policy"].signals.values()
    assert torch.autograd.grad(objective.loss(batch), list(signals), allow_unused=True) == (None,)


def test_dr_dpo_pulls_by_the_softmax_of_the_negative_losses() -> None:
    objective = build("dr_dpo", beta=1.0, beta_prime=1.0)
    batch = pair_batch([2.0, -2.0, 0.5], [0.0] * 3)
    (plain,) = build("dpo", beta=1.0)(batch)
    weights = (-plain.values).softmax(0).detach()
    assert weights[1] == weights.min(), "the pair that looks flipped counts least"
    expected = slope_of((weights * plain.values).sum(), batch)
    torch.testing.assert_close(slope_of(objective.loss(batch), batch), expected)


def test_ktos_baseline_has_no_gradient() -> None:
    objective = build("kto")
    batch = batch_for(objective)
    mismatched = batch.views["mismatched"].models["policy"].logps
    assert torch.autograd.grad(objective.loss(batch), mismatched, allow_unused=True) == (None,)


def test_kto_pulls_by_label() -> None:
    objective = build("kto")
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    good = (batch.columns["label"] > 0)[..., None] & batch.mask
    bad = (batch.columns["label"] < 0)[..., None] & batch.mask
    assert (slope[good] < 0).all()
    assert (slope[bad] > 0).all()


def test_the_other_prompts_pull_a_rejected_response_too() -> None:
    objective = build("rpo_relative", tau=0.5)
    batch = batch_for(objective, examples=3)
    (term,) = objective(batch)
    slope = torch.autograd.grad(term.values[0], batch.models["policy"].logps)[0]
    assert all(slope[e, 1, 0] > 0 for e in range(3))
    assert slope[0, 0, 0] < 0
    assert slope[1, 0, 0] == slope[2, 0, 0] == 0


def test_mpo_pulls_worse_responses_harder() -> None:
    """Rejected responses pull by their softmax; extreme scores count more, and everything adds up to 0."""
    batch = pair_batch([0.0], [0.0])
    three = PreferenceBatch(
        {
            name: type(scored)(scored.logps.repeat(1, 2, 1)[:, :3], scored.mask.repeat(1, 2, 1)[:, :3])
            for name, scored in batch.models.items()
        },
        {"score": torch.tensor([[3.0, 0.9, -1.0]]).double()},
        (),
    )
    policy = three.models["policy"].logps
    (slope,) = torch.autograd.grad(build("mpo_set", alpha=1.0, p=1).loss(three), policy)
    best, middle, worst = slope[0, :, 0].tolist()
    assert best < 0 < middle < worst
    assert best + middle + worst == pytest.approx(0, abs=1e-12)


def test_an_added_likelihood_pulls_only_the_chosen_response() -> None:
    plain, both = build("dpo"), from_config({"method": "dpo", "plus": {"nll": 0.5}}).double()
    batch = batch_for(both)
    difference = slope_of(both.loss(batch), batch) - slope_of(plain.loss(batch), batch)
    expected = -0.5 / (len(difference) * batch.lengths[:, 0, None])
    torch.testing.assert_close(difference[:, 0], torch.where(batch.mask[:, 0], expected, 0))
    torch.testing.assert_close(difference[:, 1], torch.zeros_like(difference[:, 1]))
