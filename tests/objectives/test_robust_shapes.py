"""AlphaPO, RePO and reward-aware preference optimization: shapes of rewards and losses, worked out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.objectives import PreferenceBatch, TokenLogps, dry_run, primary
from tests.objectives.batches import batch_for, build, pair_batch, slope_of
from tests.objectives.test_needs import PAIR, POLICY, needs


def means(chosen: list[float], rejected: list[float]) -> PreferenceBatch:
    """Pairs of one-token responses with these log-probabilities."""
    return pair_batch([value + 3 for value in chosen], [value + 3 for value in rejected])


def loss_of(objective, batch) -> float:
    return objective.loss(batch).item()


@pytest.mark.parametrize("key", ["alphapo", "repo", "repo_plus"])
def test_no_reference_is_read(key: str) -> None:
    assert dry_run(build(key)) == needs(PAIR, models=POLICY)


def test_alphapo_worked_out_by_hand() -> None:
    """γ inside β would give another loss, and so would a reward without the division by α."""
    objective = build("alphapo", beta=1.0, alpha=0.25, gamma=0.0)
    batch = means([-1.0], [-2.0])
    chosen, rejected = primary(objective).reward(batch)[0].tolist()
    assert chosen == pytest.approx((1 - math.exp(0.25)) / 0.25, rel=1e-12)
    assert rejected == pytest.approx((1 - math.exp(0.5)) / 0.25, rel=1e-12)
    assert loss_of(objective, batch) == pytest.approx(0.2090, abs=1e-4)
    margin = build("alphapo", beta=2.0, alpha=0.25, gamma=0.5)
    u = 2 * (chosen - rejected) - 0.5
    assert loss_of(margin, batch) == pytest.approx(math.log1p(math.exp(-u)), rel=1e-12)


@pytest.mark.parametrize(("alpha", "reward"), [(1.0, lambda p: 1 - 1 / p), (-1.0, lambda p: p - 1)])
def test_alphapo_at_one_and_minus_one(alpha: float, reward) -> None:
    objective = build("alphapo", beta=3.0, alpha=alpha)
    found = primary(objective).reward(means([-0.7], [-2.1]))[0].tolist()
    assert found == pytest.approx([3 * reward(math.exp(-0.7)), 3 * reward(math.exp(-2.1))], rel=1e-12)


@pytest.mark.parametrize("alpha", [-2.0, -0.25, 0.0, 0.25, 2.0])
def test_alphapos_reward_rises_with_the_likelihood_whatever_alpha(alpha: float) -> None:
    likelihoods = torch.linspace(-6, -0.01, 30).tolist()
    rewards = primary(build("alphapo", alpha=alpha)).reward(means(likelihoods, likelihoods))[:, 0]
    assert (rewards.diff() > 0).all()


@pytest.mark.parametrize("alpha", [-0.5, 0.25])
def test_alphapo_bends_the_pull_by_a_power_of_the_likelihood(alpha: float) -> None:
    """Per token, chosen over rejected: |y_l|/|y_w| · (p̄_l/p̄_w)^α."""
    objective = build("alphapo", alpha=alpha)
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)[..., 0]
    mean = batch.models["policy"].logps.sum(-1) / batch.lengths
    expected = batch.lengths[:, 1] / batch.lengths[:, 0] * (alpha * (mean[:, 1] - mean[:, 0])).exp()
    torch.testing.assert_close(-slope[:, 0] / slope[:, 1], expected.detach())


def test_alphapo_keeps_its_value_when_every_token_comes_twice() -> None:
    objective = build("alphapo")
    batch = batch_for(objective)
    policy = batch.models["policy"]
    twice = TokenLogps(policy.logps.repeat(1, 1, 2), policy.mask.repeat(1, 1, 2))
    torch.testing.assert_close(objective.loss(batch), objective.loss(PreferenceBatch({"policy": twice})))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alphapo_stays_finite_for_unlikely_responses(dtype: torch.dtype) -> None:
    logps = torch.tensor([[[-900.0], [-0.1]], [[-0.1], [-900.0]]], dtype=dtype, requires_grad=True)
    batch = PreferenceBatch({"policy": TokenLogps(logps, torch.ones(2, 2, 1, dtype=torch.bool))})
    for alpha in (1.0, -1.0):
        loss = build("alphapo", alpha=alpha).to(dtype).loss(batch)
        assert loss.isfinite()
        assert slope_of(loss, batch).isfinite().all()


def test_repo_pulls_in_full_until_the_margin_and_not_at_all_beyond() -> None:
    """A logistic loss would still pull at .75, a squared hinge pull less at .375 than at 0."""
    objective = build("repo", gamma=0.5)
    for margin, cost, pull in ((0.0, 0.5, 1.0), (0.375, 0.125, 1.0), (0.5, 0.0, 0.0), (0.75, 0.0, 0.0)):
        batch = means([-1.0], [-1.0 - margin])
        loss = objective.loss(batch)
        chosen, rejected = slope_of(loss, batch)[0, :, 0].tolist()
        assert loss.item() == pytest.approx(cost, abs=1e-12)
        assert chosen == pytest.approx(-pull)
        assert rejected == pytest.approx(pull)


def test_repo_averages_over_each_responses_own_tokens() -> None:
    objective = build("repo", gamma=5.0)
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    expected = torch.where(batch.mask, 1 / (len(slope) * batch.lengths[..., None]), 0)
    torch.testing.assert_close(slope[:, 0], -expected[:, 0])
    torch.testing.assert_close(slope[:, 1], expected[:, 1])


def test_repo_is_what_simpo_over_beta_becomes() -> None:
    """RePO's γ is SimPO's γ/β."""
    beta, gamma = 1e4, 0.4
    batch = batch_for(build("repo"))
    sharp, limit = build("simpo", beta=beta, gamma=beta * gamma), build("repo", gamma=gamma)
    torch.testing.assert_close(sharp.loss(batch) / beta, limit.loss(batch), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        slope_of(sharp.loss(batch), batch) / beta, slope_of(limit.loss(batch), batch), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("progress", "gamma"), [(0.0, 0.6), (0.5, 0.4), (1.0, 0.2)])
def test_repos_margin_falls_in_a_straight_line(progress: float, gamma: float) -> None:
    batch = batch_for(build("repo"))
    scheduled = build("repo", gamma=0.6, final_gamma=0.2).loss(replace(batch, progress=progress))
    torch.testing.assert_close(scheduled, build("repo", gamma=gamma).loss(batch))


def test_repo_sees_differences_alone() -> None:
    objective = build("repo")
    plain, shifted = means([-1.0, -2.0], [-1.2, -1.5]), means([-3.5, -4.5], [-3.7, -4.0])
    torch.testing.assert_close(objective.loss(plain), objective.loss(shifted))


def test_repo_plus_is_simpo_until_the_margin_and_log_two_beyond() -> None:
    batch = means([-1.0, -1.0, -1.0], [-0.2, -1.3, -1.9])
    (softer,) = build("repo_plus", beta=2.5, gamma=0.4)(batch)
    (simpo,) = build("simpo", beta=2.5, gamma=1.0)(batch)
    torch.testing.assert_close(softer.values[:2], simpo.values[:2])
    assert softer.values[2].item() == pytest.approx(math.log(2))
    slope = slope_of(softer.total, batch)
    assert torch.equal(slope[2], torch.zeros_like(slope[2]))
    torch.testing.assert_close(slope[:2], slope_of(simpo.total, batch)[:2])


def scored(margins: list[float], gaps: list[float]) -> PreferenceBatch:
    """Pairs with these log-ratio margins and score gaps."""
    score = torch.tensor([[gap, 0.0] for gap in gaps], dtype=torch.float64)
    return pair_batch(margins, [0.0] * len(margins), {"score": score})


def reward_aware(divergence: str, **arguments: float):
    return build("rpo_reward_aware", divergence=divergence, **{"beta": 1.0, "eta": 1.0, **arguments})


def test_what_reward_aware_methods_need() -> None:
    assert dry_run(build("rpo_reward_aware")) == needs(PAIR, "score")
    assert dry_run(build("rpo_reward_aware_lists")) == needs((), "score")


def test_the_backward_kl_has_the_scores_first() -> None:
    batch = scored([0.0], [math.log(3)])
    backward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    forward = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert loss_of(reward_aware("backward_kl"), batch) == pytest.approx(backward, rel=1e-12)
    assert loss_of(reward_aware("forward_kl"), batch) == pytest.approx(forward, rel=1e-12)
    assert loss_of(reward_aware("squared"), batch) == pytest.approx(math.log(3) ** 2, rel=1e-12)


@pytest.mark.parametrize("divergence", ["backward_kl", "forward_kl", "squared"])
def test_reward_aware_costs_nothing_where_the_gaps_agree_and_only_there(divergence: str) -> None:
    objective = reward_aware(divergence, beta=0.5, eta=2.0)
    there = scored([4.0, -8.0], [1.0, -2.0])
    assert loss_of(objective, there) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        slope_of(objective.loss(there), there), torch.zeros(2, 2, 1).double(), rtol=0, atol=1e-12
    )
    for margin in (3.0, 5.0):
        assert loss_of(objective, scored([margin], [1.0])) > 1e-4


@pytest.mark.parametrize("divergence", ["backward_kl", "forward_kl", "squared"])
def test_the_scores_win_over_the_labels(divergence: str) -> None:
    """Swapping responses and scores changes nothing; a rejected response with the higher score goes up."""
    objective = reward_aware(divergence)
    batch = scored([0.3, -1.2], [0.8, 0.5])
    swapped = replace(batch, roles=("rejected", "chosen"))
    torch.testing.assert_close(objective.loss(batch), objective.loss(swapped))
    contradicted = scored([0.0], [-2.0])
    chosen, rejected = slope_of(objective.loss(contradicted), contradicted)[0, :, 0].tolist()
    assert chosen > 0 > rejected


@pytest.mark.parametrize(
    ("divergence", "slope"),
    [("backward_kl", lambda a, t: a.sigmoid() - t.sigmoid()), ("squared", lambda a, t: 2 * (a - t))],
)
def test_the_slope_of_reward_aware(divergence: str, slope) -> None:
    margins, gaps = [-2.0, 0.1, 3.0], [1.0, 0.3, -0.5]
    batch = scored(margins, gaps)
    found = slope_of(reward_aware(divergence).loss(batch), batch)[:, 0, 0] * 3
    torch.testing.assert_close(found, slope(torch.tensor(margins).double(), torch.tensor(gaps).double()))


def test_forward_has_no_slope_far_on_the_wrong_side_where_backward_pulls_in_full() -> None:
    batch = scored([-60.0], [1.0])
    backward, forward = (
        abs(slope_of(reward_aware(one).loss(batch), batch)[0, 0, 0].item())
        for one in ("backward_kl", "forward_kl")
    )
    assert backward > 0.7
    assert forward < 1e-20


def test_reward_aware_becomes_dpo_cdpo_and_ipo() -> None:
    margins = [-1.5, 0.0, 2.0]
    certain, plain = scored(margins, [40.0] * 3), pair_batch(margins, [0.0] * 3)
    torch.testing.assert_close(
        reward_aware("backward_kl", beta=0.3).loss(certain), build("dpo", beta=0.3).loss(plain)
    )
    rate = 0.1
    unsure = scored(margins, [math.log((1 - rate) / rate)] * 3)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    smoothed = build("cdpo", beta=0.3, smoothing=rate).loss(plain) - entropy
    torch.testing.assert_close(reward_aware("backward_kl", beta=0.3).loss(unsure), smoothed)
    half, beta = scored(margins, [0.5] * 3), 0.3
    ipo = beta**2 * build("ipo", tau=beta, tokens="sum").loss(plain)
    torch.testing.assert_close(reward_aware("squared", beta=beta).loss(half), ipo)


@pytest.mark.parametrize("divergence", ["backward_kl", "forward_kl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reward_aware_stays_finite_far_away(divergence: str, dtype: torch.dtype) -> None:
    logps = torch.tensor([[[1000.0], [0.0]], [[0.0], [1000.0]]], dtype=dtype, requires_grad=True)
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    models = {"policy": TokenLogps(logps, mask), "reference": TokenLogps(torch.zeros_like(logps), mask)}
    batch = PreferenceBatch(models, {"score": torch.tensor([[1000.0, 0.0], [1000.0, 0.0]], dtype=dtype)})
    loss = reward_aware(divergence).to(dtype).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


def lists(divergence: str, **arguments: float):
    return build("rpo_reward_aware_lists", divergence=divergence, **{"beta": 1.0, "eta": 1.0, **arguments})


@pytest.mark.parametrize("responses", [2, 3, 4])
def test_all_pairs_are_the_centred_square_times_a_factor(responses: int) -> None:
    ratios = torch.randn(1, responses, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    score = torch.linspace(0, 1, responses).double().square()[None]
    mask = torch.ones_like(ratios, dtype=torch.bool)
    models = {
        "policy": TokenLogps(ratios.requires_grad_(), mask),
        "reference": TokenLogps(torch.zeros_like(ratios), mask),
    }
    batch = PreferenceBatch(models, {"score": score}, ())
    error = ratios[0, :, 0] - score[0]
    pairs = (error[:, None] - error[None, :]).square()
    mean = pairs.sum() / (responses * (responses - 1))
    torch.testing.assert_close(lists("squared_pairs").loss(batch), mean)
    torch.testing.assert_close(
        lists("squared_pairs").loss(batch), 2 * responses / (responses - 1) * lists("squared").loss(batch)
    )


def test_a_list_of_two_has_the_divergence_of_a_pair() -> None:
    pair = scored([0.7, -0.4], [1.0, 2.0])
    two = replace(pair, roles=())
    for divergence in ("backward_kl", "forward_kl"):
        torch.testing.assert_close(lists(divergence).loss(two), reward_aware(divergence).loss(pair))
    torch.testing.assert_close(lists("squared_pairs").loss(two), reward_aware("squared").loss(pair))


def test_at_the_start_the_squared_form_has_the_leave_one_out_gradient() -> None:
    score = torch.tensor([[1.0, 0.2, -0.5, 2.0]]).double()
    logps = torch.full((1, 4, 1), -2.0, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 4, 1, dtype=torch.bool)
    models = {"policy": TokenLogps(logps, mask), "reference": TokenLogps(logps.detach(), mask)}
    batch = PreferenceBatch(models, {"score": score}, ())
    slope = slope_of(lists("squared_pairs").loss(batch), batch)[0, :, 0]
    advantage = score[0] - (score[0].sum() - score[0]) / 3
    torch.testing.assert_close(slope / slope[0], advantage / advantage[0])
    assert slope[3] < 0 < slope[2]


def test_a_response_alone_in_its_list_does_not_count() -> None:
    batch = batch_for(lists("squared"), complete=True)
    alone = batch.mask.clone()
    alone[0, 1:] = False
    models = {name: TokenLogps(one.logps, alone) for name, one in batch.models.items()}
    with_one = PreferenceBatch(models, batch.columns, ())
    for divergence in ("squared", "squared_pairs", "backward_kl"):
        (term,) = lists(divergence)(with_one)
        assert float(term.count) == len(batch.mask) - 1
