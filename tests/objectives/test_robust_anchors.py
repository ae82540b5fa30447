"""Rationales, RPO, f-divergence SFT and self-refinement: what is pulled, how hard, and what is left alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.errors import PreferoError
from prefero.objectives import PreferenceBatch, TokenLogps, dry_run
from tests.objectives.batches import batch_for, build, leaves, pair_batch, slope_of
from tests.objectives.test_needs import BOTH, PAIR, POLICY, needs


def losses(objective, batch) -> torch.Tensor:
    return sum(term.values for term in objective(batch)).detach()


def test_what_they_need() -> None:
    assert dry_run(build("rpo_sft")) == needs()
    assert dry_run(build("rpo_sft", baseline="gold")) == needs((*PAIR, "gold"))
    assert dry_run(build("rationale_dpo")) == needs((*PAIR, "rationale"))
    assert dry_run(build("rationale_orpo")) == needs((*PAIR, "rationale"), models=POLICY)
    assert dry_run(build("f_sft")) == needs(("chosen",))
    for key in ("sr_dpo", "sr_ipo"):
        assert dry_run(build(key)) == needs(views={"prompted": needs(models=BOTH)}.items())


def test_rpo_worked_out_by_hand() -> None:
    """β belongs to the likelihood too: without it the loss is 5.6931."""
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    logps = torch.full((1, 2, 1), -10.0, dtype=torch.float64)
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(logps, mask)})
    loss = build("rpo_sft", beta=0.1, eta=0.5).loss(batch)
    assert loss.item() == pytest.approx(math.log(2) + 0.5, rel=1e-12)


def test_rpo_pulls_every_chosen_token_by_eta_times_beta_more_and_no_rejected_one() -> None:
    batch = batch_for(build("rpo_sft"))
    both = slope_of(build("rpo_sft").loss(batch), batch)
    plain = slope_of(build("dpo", beta=0.01).loss(batch), batch)
    extra = batch.mask[:, 0].double() * -0.005 * 0.01 / len(both)
    torch.testing.assert_close(both[:, 0] - plain[:, 0], extra)
    torch.testing.assert_close(both[:, 1], plain[:, 1])


def test_rpos_sum_and_mean_agree_where_all_lengths_are_the_same() -> None:
    batch = batch_for(build("rpo_sft"))
    whole = {name: TokenLogps(one.logps, torch.ones_like(one.mask)) for name, one in batch.models.items()}
    even = replace(batch, models=whole)
    length, beta, eta = batch.mask.shape[-1], 0.3, 0.2
    summed = build("rpo_sft", beta=beta, eta=eta)
    mean = build("rpo_sft", beta=beta, eta=0.0, alpha=eta * beta * length)
    torch.testing.assert_close(summed.loss(even), mean.loss(even))
    assert not torch.isclose(summed.loss(batch), mean.loss(batch))


def test_rpo_on_demonstrations_pulls_them_and_leaves_the_chosen_response_to_dpo() -> None:
    objective = build("rpo_sft", baseline="gold", eta=1.0)
    batch = batch_for(objective)
    slope, gold = slope_of(objective.loss(batch), batch), batch.roles.index("gold")
    plain = slope_of(build("dpo", beta=0.01).loss(batch), batch)
    torch.testing.assert_close(slope[:, :2], plain[:, :2])
    torch.testing.assert_close(slope[:, gold], batch.mask[:, gold].double() * -0.01 / len(slope))


def with_rationale(key: str, **arguments):
    objective = build(key, **arguments)
    return objective, batch_for(objective)


def test_a_rationale_is_pulled_by_gamma_a_token_and_the_pair_as_by_dpo() -> None:
    objective, batch = with_rationale("rationale_dpo", gamma=0.03)
    slope = slope_of(objective.loss(batch), batch)
    plain = slope_of(build("dpo").loss(batch), batch)
    torch.testing.assert_close(slope[:, :2], plain[:, :2])
    torch.testing.assert_close(slope[:, 2], batch.mask[:, 2].double() * -0.03 / len(slope))


def test_the_codes_rationale_term_saturates_and_adds_log_two_where_the_rationale_is_certain() -> None:
    objective, batch = with_rationale("rationale_dpo", gamma=0.3, likelihood="sigmoid")
    summed = batch.models["policy"].logps.sum(-1)[:, 2].detach()
    slope = slope_of(objective.loss(batch), batch)[:, 2, 0]
    torch.testing.assert_close(slope * len(slope), -0.3 * torch.sigmoid(-0.3 * summed))
    policy = batch.models["policy"]
    certain = torch.cat([policy.logps[:, :2], torch.zeros_like(policy.logps[:, 2:])], 1)
    sure = replace(batch, models={**batch.models, "policy": TokenLogps(certain, policy.mask)})
    torch.testing.assert_close(
        losses(objective, sure), losses(build("dpo"), sure) + math.log(2), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("likelihood", ["log", "sigmoid"])
def test_the_reference_says_nothing_about_a_rationale(likelihood: str) -> None:
    objective, batch = with_rationale("rationale_dpo", likelihood=likelihood)
    reference = batch.models["reference"]
    unknown = reference.logps.clone()
    unknown[:, 2] = float("nan")
    models = {**batch.models, "reference": TokenLogps(unknown, reference.mask)}
    loss = objective.loss(replace(batch, models=models))
    torch.testing.assert_close(loss, objective.loss(batch))
    assert slope_of(loss, batch).isfinite().all()


def test_the_odds_of_rationale_orpo_are_those_of_whole_responses() -> None:
    """Of means they would be others."""
    logps = torch.tensor([[[-0.5, -0.7], [-0.2, -0.1], [-1.0, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[[True, True], [True, True], [True, False]]])
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask)}, {}, (*PAIR, "rationale"))
    loss = build("rationale_orpo", lam=0.1, gamma=1.0).loss(batch)

    def log_odds(p: float) -> float:
        return math.log(p / (1 - p))

    margin = log_odds(math.exp(-1.2)) - log_odds(math.exp(-0.3))
    assert loss.item() == pytest.approx(0.6 + 0.1 * math.log1p(math.exp(-margin)) + 1.0, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odds_of_a_certain_and_of_an_impossible_response_are_finite(dtype: torch.dtype) -> None:
    logps = torch.tensor([[[0.0], [-1000.0], [-1.0]]], dtype=dtype, requires_grad=True)
    mask = torch.ones(1, 3, 1, dtype=torch.bool)
    for roles in ((*PAIR, "rationale"), ("rejected", "chosen", "rationale")):
        batch = PreferenceBatch({"policy": TokenLogps(logps, mask)}, {}, roles)
        loss = build("rationale_orpo").to(dtype).loss(batch)
        assert loss.isfinite()
        assert slope_of(loss, batch).isfinite().all()


FITS = ["total_variation", "pearson", "squared_hellinger", "jensen_shannon"]


def fitted(divergence: str, rewards: list[float], beta: float = 1.0, **arguments) -> torch.Tensor:
    """The slope at each token of one response whose tokens have these rewards."""
    objective = build("f_sft", beta=beta, divergence=divergence, **arguments)
    logps = torch.tensor([[rewards]], dtype=torch.float64) / beta
    mask = torch.ones_like(logps, dtype=torch.bool)
    models = {
        "policy": TokenLogps(logps.requires_grad_(), mask),
        "reference": TokenLogps(torch.zeros_like(logps), mask),
    }
    batch = PreferenceBatch(models, {}, ("chosen",))
    return slope_of(objective.loss(batch), batch)[0, 0] * len(rewards)


@pytest.mark.parametrize("divergence", FITS)
def test_every_f_sft_starts_as_supervised_fine_tuning(divergence: str) -> None:
    torch.testing.assert_close(fitted(divergence, [0.0, 0.0, 0.0]), -torch.ones(3).double())


def test_total_variation_has_nlls_gradient_whatever_the_reference() -> None:
    objective = build("f_sft", divergence="total_variation", beta=0.3)
    batch = batch_for(objective)
    torch.testing.assert_close(
        slope_of(objective.loss(batch), batch), slope_of(build("nll").loss(batch), batch)
    )


@pytest.mark.parametrize(
    ("divergence", "weights"),
    [
        ("pearson", {2.0: 0.0, 3.0: -0.5, -2.0: 2.0}),
        ("squared_hellinger", {1.0: 0.25, -0.4: 1 / 0.36}),
        ("jensen_shannon", {0.0: 1.0, 1.0: math.exp(-1) / (2 - math.exp(-1))}),
    ],
)
def test_how_hard_a_token_is_pulled_by_its_reward(divergence: str, weights: dict[float, float]) -> None:
    found = fitted(divergence, list(weights))
    torch.testing.assert_close(found, -torch.tensor(list(weights.values()), dtype=torch.float64))


@pytest.mark.parametrize(
    ("divergence", "steepest"),
    [("squared_hellinger", 4.0), ("jensen_shannon", math.exp(0.5) / (2 - math.exp(0.5)))],
)
def test_below_the_floor_a_token_is_still_pulled_and_by_a_finite_weight(
    divergence: str, steepest: float
) -> None:
    """A clamp would leave the tokens alone that need it most; the formula itself has a pole."""
    found = fitted(divergence, [-0.6, -5.0, -1000.0])
    torch.testing.assert_close(found, -torch.full((3,), steepest).double())


def test_a_floor_outside_of_jensen_shannons_range_is_refused() -> None:
    build("f_sft", divergence="squared_hellinger", floor=-0.9)
    with pytest.raises(PreferoError, match="above −log 2"):
        build("f_sft", divergence="jensen_shannon", floor=-0.9)


@pytest.mark.parametrize("granularity", ["token", "sequence"])
@pytest.mark.parametrize("divergence", FITS)
def test_f_sft_is_finite_far_from_the_reference_in_single_precision(
    divergence: str, granularity: str
) -> None:
    objective = build("f_sft", divergence=divergence, granularity=granularity).float()
    logps = torch.tensor([[[-1000.0, 900.0]]], requires_grad=True)
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    models = {"policy": TokenLogps(logps, mask), "reference": TokenLogps(torch.zeros_like(logps), mask)}
    batch = PreferenceBatch(models, {}, ("chosen",))
    loss = objective.loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


def test_whole_responses_are_one_reward() -> None:
    objective = build("f_sft", granularity="sequence", beta=0.1, divergence="pearson")
    batch = batch_for(objective)
    ratio = (batch.models["policy"].logps - batch.models["reference"].logps).sum(-1)[:, 0]
    torch.testing.assert_close(objective.loss(batch), -(ratio - 0.1 * ratio.square() / 4).mean())


def prompted(margin: float, gap: float) -> PreferenceBatch:
    """One pair with this margin, and this margin under the other prompt."""
    return replace(pair_batch([margin], [0.0]), views={"prompted": pair_batch([gap], [0.0])})


def test_self_refinement_subtracts_its_gap() -> None:
    """Added inside the sigmoid, it would ease the pair."""
    objective = build("sr_dpo", beta=0.5, lam=0.4)
    found = [objective.loss(prompted(1.0, gap)).item() for gap in (-2.0, 0.0, 2.0)]
    expected = [math.log1p(math.exp(-0.5 * (1.0 - 0.4 * gap))) for gap in (-2.0, 0.0, 2.0)]
    assert found == pytest.approx(expected, rel=1e-12)
    pulls = []
    for gap in (-2.0, 0.0, 2.0):
        batch = prompted(1.0, gap)
        pulls.append(-slope_of(objective.loss(batch), batch)[0, 0, 0].item())
    assert pulls == sorted(pulls)
    assert pulls[0] < pulls[2]


def test_a_gap_without_a_gradient_keeps_the_full_slope() -> None:
    """With the prompt itself as the prompt that demands quality the value is dpo's at (1 − λ)β; had the gap a
    gradient, the slope would be too."""
    beta, lam, margin = 0.5, 0.4, 1.3
    batch = prompted(margin, margin)
    loss = build("sr_dpo", beta=beta, lam=lam).loss(batch)
    short = (1 - lam) * beta * margin
    assert loss.item() == pytest.approx(math.log1p(math.exp(-short)), rel=1e-12)
    assert slope_of(loss, batch)[0, 0, 0].item() == pytest.approx(-beta / (1 + math.exp(short)), rel=1e-12)


@pytest.mark.parametrize("key", ["sr_dpo", "sr_ipo"])
def test_no_gradient_reaches_the_prompted_view(key: str) -> None:
    objective = build(key)
    batch = batch_for(objective)
    (inner,) = leaves(batch.views["prompted"])
    assert torch.autograd.grad(objective.loss(batch), inner, allow_unused=True) == (None,)


def test_self_refinement_starts_as_dpo() -> None:
    batch, plain = prompted(0.0, 0.0), pair_batch([0.0], [0.0])
    loss = build("sr_dpo", beta=0.5, lam=0.9).loss(batch)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    expected = slope_of(build("dpo", beta=0.5).loss(plain), plain)
    torch.testing.assert_close(slope_of(loss, batch), expected)


def test_a_floor_never_eases_a_pair() -> None:
    held, free = build("sr_dpo", floor="zero"), build("sr_dpo")
    assert held.loss(prompted(1.0, -3.0)) == build("dpo").loss(prompted(1.0, -3.0))
    assert held.loss(prompted(1.0, 3.0)) == free.loss(prompted(1.0, 3.0))


def test_sr_ipo_moves_its_target() -> None:
    objective = build("sr_ipo", tau=0.25, lam=0.5)
    batch = prompted(3.0, 2.0)
    loss = objective.loss(batch)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert objective.loss(prompted(3.0, 0.0)).item() == pytest.approx(1.0)
