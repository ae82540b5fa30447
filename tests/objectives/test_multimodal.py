"""Images, discounts, relevance, several goals: what each of these losses must and must not see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.objectives import PreferenceBatch, TokenLogps, from_config, method, primary
from prefero.objectives.presets.length import position_discount
from prefero.objectives.signals import LOG_Z
from prefero.theory.optima import reward_optimum
from tests.objectives.batches import batch_for, build, pair_batch, slope_of, slopes


def seen(chosen: float, rejected: float, corrupted: float) -> PreferenceBatch:
    """A pair of one-token responses with these log-ratios, the chosen one also with the corrupted image."""
    view = pair_batch([corrupted], [0.0])
    alone = {
        name: TokenLogps(scored.logps[:, :1].detach().requires_grad_(name == "policy"), scored.mask[:, :1])
        for name, scored in view.models.items()
    }
    batch = pair_batch([chosen], [rejected])
    return replace(batch, views={"corrupted": PreferenceBatch(alone, {}, ("chosen",))})


# mDPO, VDPO


def test_equal_models_cost_three_times_log_two() -> None:
    assert build("mdpo").loss(seen(0.0, 0.0, 0.0)).item() == pytest.approx(3 * math.log(2))
    assert build("vdpo").loss(seen(0.0, 0.0, 0.0)).item() == pytest.approx(math.log(2))


def test_the_three_pushes() -> None:
    batch = seen(0.4, 0.1, -0.3)
    pair, corrupted = slopes(build("mdpo").loss(batch), batch)
    assert pair[0, 0, 0] < 0 < pair[0, 1, 0]
    assert corrupted[0, 0, 0] > 0, "the likelihood under the corrupted image is pushed down, not held"
    alone = slope_of(build("dpo").loss(batch), batch)
    assert pair[0, 0, 0] < alone[0, 0, 0], "the image term and the anchor push the chosen up as well"
    assert pair[0, 1, 0] == alone[0, 1, 0]


@pytest.mark.parametrize("key", ["mdpo", "vdpo"])
def test_the_reference_sees_the_corrupted_image_too(key: str) -> None:
    batch = seen(0.4, 0.1, -0.3)
    view = batch.views["corrupted"]
    reference = view.models["reference"]
    moved = {**view.models, "reference": TokenLogps(reference.logps - 1, reference.mask)}
    other = replace(batch, views={"corrupted": replace(view, models=moved)})
    assert build(key).loss(batch) != build(key).loss(other)


def test_an_image_that_is_not_corrupted_teaches_nothing() -> None:
    """The same log-probabilities on both sides: log 2, and what is pushed up is pushed down as hard."""
    batch = seen(0.7, 0.0, 0.7)
    loss = build("vdpo").loss(batch)
    assert loss.item() == pytest.approx(math.log(2))
    up, down = slopes(loss, batch)
    assert (up[0, 0, 0] + down[0, 0, 0]).item() == pytest.approx(0, abs=1e-15)


def test_a_high_anchor_pulls_by_beta() -> None:
    batch = seen(0.2, 0.0, 0.0)
    with_anchor, without = (
        slope_of(build("mdpo", beta=0.3, anchor=50.0, anchor_weight=weight).loss(batch), batch)[0, 0, 0]
        for weight in (1.0, 0.0)
    )
    assert (with_anchor - without).item() == pytest.approx(-0.3)


# position discounts


@pytest.mark.parametrize("kind", ["cos", "linear"])
def test_discounts_start_at_one_fall_and_add_up_to_half_the_length(kind) -> None:
    batch = batch_for(build("dpo"))
    weight = position_discount(kind)(batch)
    length = batch.lengths
    assert torch.equal(weight[..., 0], torch.ones_like(length).to(weight.dtype))
    total = torch.where(batch.mask, weight, 0).sum(-1)
    torch.testing.assert_close(total.double(), (length + 1) / 2, rtol=1e-6, atol=1e-6)
    later = batch.mask[..., 1:]
    assert (weight.diff(dim=-1)[later] < 0).all()
    assert (weight[batch.mask] > 0).all(), "the last token still counts"


def test_each_response_is_discounted_by_its_own_length() -> None:
    mask = torch.tensor([[[True, True, True, True], [True, True, False, False]]])
    logps = torch.zeros(1, 2, 4, dtype=torch.float64)
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask)})
    weight = position_discount("linear")(batch)
    assert weight[0, :, 1].tolist() == pytest.approx([0.75, 0.5])


def test_one_token_is_not_discounted() -> None:
    batch = pair_batch([0.5, -1.0], [0.2, 0.3])
    for discount in ("cos", "linear"):
        objective = build("discounted_dpo", discount=discount)
        torch.testing.assert_close(objective.loss(batch), build("dpo").loss(batch))


# relevance


def test_an_irrelevant_token_pulls_gamma_as_hard() -> None:
    objective = build("relevance_weighted_dpo", gamma=0.25)
    batch = batch_for(objective)
    batch.columns["segment"][:] = torch.tensor([1, 0, 2, 0, 1])
    slope = slope_of(objective.loss(batch), batch)
    both = batch.mask[..., 1]
    torch.testing.assert_close(slope[..., 1][both], 0.25 * slope[..., 0][both])


def test_a_deletion_pushes_the_rejected_part_down_alone() -> None:
    """At γ = 0 a chosen response without a relevant token has no reward, and the pair still counts."""
    objective = build("relevance_weighted_dpo", gamma=0.0)
    batch = batch_for(objective)
    batch.columns["segment"][:, 0], batch.columns["segment"][:, 1] = 0, 1
    (term,) = objective(batch)
    slope = slope_of(objective.loss(batch), batch)
    assert term.count == len(slope)
    assert torch.equal(slope[:, 0], torch.zeros_like(slope[:, 0]))
    assert (slope[:, 1][batch.mask[:, 1]] > 0).all()


# MODPO


def goal(chosen: float, rejected: float, margin: float = 0.3) -> PreferenceBatch:
    other = torch.tensor([[chosen, rejected]], dtype=torch.float64)
    return pair_batch([margin], [0.0], {"other_score": other})


def modpo_pull(chosen: float, rejected: float) -> float:
    batch = goal(chosen, rejected)
    return slope_of(build("modpo").loss(batch), batch)[0, 0, 0].item()


def test_a_pair_that_the_other_goals_favour_must_win_by_more() -> None:
    """Added instead of subtracted, the favoured pair would count as won."""
    assert modpo_pull(2.0, 0.0) < modpo_pull(1.0, 1.0) < modpo_pull(0.0, 2.0) < 0


def test_equal_other_rewards_are_dpo_with_beta_over_the_share() -> None:
    batch = goal(1.5, 1.5)
    loss = build("modpo", beta=0.1, share=0.25).loss(batch)
    torch.testing.assert_close(loss, build("dpo", beta=0.4).loss(batch))


def test_a_constant_on_the_other_rewards_changes_nothing() -> None:
    objective = build("modpo")
    torch.testing.assert_close(objective.loss(goal(2.0, 0.5)), objective.loss(goal(7.0, 5.5)))


@pytest.mark.parametrize(("margin", "expected"), [(14.0, 0.2), (16.0, 0.0)])
def test_modpos_hinge_bends_where_the_whole_scaled_margin_is_one(margin: float, expected: float) -> None:
    """(0.1 · 15 − 0.5 · 2) / 0.5 = 1; with 1/w outside the hinge it would bend at a margin of 20."""
    loss = build("modpo", beta=0.1, share=0.5, link="hinge").loss(goal(2.0, 0.0, margin))
    assert loss.item() == pytest.approx(expected)


def test_the_minimiser_is_the_optimum_of_the_weighted_sum_of_rewards() -> None:
    """All pairs of four responses, labelled by the first reward with Bradley and Terry's probability."""
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    own = torch.tensor([0.5, -0.2, 0.1, 0.8], dtype=torch.float64)
    other = torch.tensor([-0.3, 0.6, 0.2, -0.1], dtype=torch.float64)
    share, beta = 0.6, 0.5
    first, second = torch.triu_indices(4, 4, offset=1)
    probability = torch.sigmoid(own[first] - own[second])
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    objective = method("modpo", beta=beta, share=share).double()

    def pairs(chosen, rejected) -> PreferenceBatch:
        places = torch.stack([chosen, rejected], 1)
        mask = torch.ones(*places.shape, 1, dtype=torch.bool)
        models = {
            "policy": TokenLogps(logits.log_softmax(0)[places][..., None], mask),
            "reference": TokenLogps(reference.log()[places][..., None], mask),
        }
        return PreferenceBatch(models, {"other_score": other[places]})

    optimizer = torch.optim.LBFGS(
        [logits], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-16
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        (right,), (wrong,) = objective(pairs(first, second)), objective(pairs(second, first))
        value = (probability * right.values + (1 - probability) * wrong.values).sum()
        value.backward()
        return value

    optimizer.step(loss)
    expected = reward_optimum(reference, share * own + (1 - share) * other, beta)
    torch.testing.assert_close(logits.detach().softmax(0), expected, rtol=1e-6, atol=1e-6)


# FSPO


def test_fspo_starts_at_its_target_squared_and_pulls_by_one_over_tau() -> None:
    batch = pair_batch([0.0], [0.0])
    loss = build("fspo", tau=0.01).loss(batch)
    assert loss.item() == pytest.approx(2500)
    assert slope_of(loss, batch)[0, :, 0].tolist() == pytest.approx([-100, 100])
    assert build("fspo", tau=0.01).loss(pair_batch([50.0], [0.0])).item() == pytest.approx(0, abs=1e-12)


def test_fspo_sums_over_tokens() -> None:
    batch = batch_for(build("fspo"))
    doubled = {
        name: TokenLogps(scored.logps.repeat(1, 1, 2), scored.mask.repeat(1, 1, 2))
        for name, scored in batch.models.items()
    }
    margin = primary(build("fspo")).comparisons
    torch.testing.assert_close(margin(PreferenceBatch(doubled)).margins, 2 * margin(batch).margins)


# z-loss


def test_z_loss_pulls_the_normaliser_to_one_and_leaves_the_preference_alone() -> None:
    batch = pair_batch([0.3], [0.1])
    policy = batch.models["policy"]
    log_z = torch.tensor([[[2.0], [-1.0]]], dtype=torch.float64, requires_grad=True)
    measured = TokenLogps(policy.logps, policy.mask, {LOG_Z: log_z})
    both = from_config({"method": "dpo", "plus": {"z_loss": 1.0}}).double()
    loss = both.loss(replace(batch, models={**batch.models, "policy": measured}))
    assert loss.item() == pytest.approx(build("dpo").loss(batch).item() + 1e-4 * (4 + 1) / 2)
    (slope,) = torch.autograd.grad(loss, log_z, retain_graph=True)
    assert slope[0, :, 0].tolist() == pytest.approx([1e-4 * 2.0, -1e-4])
    torch.testing.assert_close(slope_of(loss, batch), slope_of(build("dpo").loss(batch), batch))
