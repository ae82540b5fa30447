"""Likelihoods on their own: ASFT's two terms, TYPO between preferences and reference, Omni-DPO's anchor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.objectives import PreferenceBatch, TokenLogps, method
from prefero.theory.distributions import bradley_terry_policy, desiderata, fitted_policy
from prefero.theory.vector_field import probability_slopes
from tests.objectives.batches import batch_for, build, pair_batch, slope_of


def means(batch: PreferenceBatch) -> Tensor:
    return ((batch.models["policy"].logps * batch.mask).sum(-1) / batch.lengths).detach()


def test_asft_is_two_likelihoods_of_a_token_not_of_a_response() -> None:
    objective = build("asft", lam=0.5)
    batch = batch_for(objective)
    chosen, rejected = means(batch).T
    expected = -chosen + 0.5 * (-chosen - torch.log1p(-rejected.exp()))
    torch.testing.assert_close(objective.loss(batch), expected.mean(), rtol=1e-12, atol=0)


def test_asft_pulls_the_chosen_by_a_constant_and_an_unlikely_rejected_response_hardly() -> None:
    """A pairwise difference, as in ORPO, would make the chosen response's pull depend on the rejected one."""
    objective = build("asft", lam=0.5)
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch) * len(batch.mask)
    per_response = torch.where(batch.mask, slope, 0).sum(-1)
    torch.testing.assert_close(per_response[:, 0], torch.full((6,), -1.5, dtype=torch.float64))
    p = means(batch)[:, 1].exp()
    torch.testing.assert_close(per_response[:, 1], 0.5 * p / (1 - p))
    unlikely = pair_batch([0.0], [-40.0])
    assert float(slope_of(objective.loss(unlikely), unlikely)[0, 1, 0]) < 1e-15


def test_orpo_is_never_above_asft() -> None:
    for seed in range(5):
        objective = build("asft", lam=0.7)
        batch = batch_for(objective, seed=seed)
        assert build("orpo", lam=0.7).loss(batch) <= objective.loss(batch)


@pytest.mark.parametrize("chosen", [0.0, -1e-12, -1e3])
@pytest.mark.parametrize("rejected", [0.0, -1e-12, -1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_asft_is_finite_for_certain_and_for_impossible_responses(chosen, rejected, dtype) -> None:
    logps = torch.tensor([[[chosen], [rejected]]], dtype=dtype, requires_grad=True)
    batch = PreferenceBatch({"policy": TokenLogps(logps, torch.ones(1, 2, 1, dtype=torch.bool))})
    loss = method("asft").loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


def typo_batch(
    shares: list[float], margins: list[float], sample: list[float], reference: list[float]
) -> PreferenceBatch:
    count = len(shares)
    policy = torch.tensor([margins, [0.0] * count, sample], dtype=torch.float64).T[..., None] - 20
    given = torch.tensor([[5.0] * count, [-5.0] * count, reference], dtype=torch.float64).T[..., None] - 20
    mask = torch.ones_like(policy, dtype=torch.bool)
    return PreferenceBatch(
        {"policy": TokenLogps(policy.requires_grad_(), mask), "reference": TokenLogps(given, mask)},
        {"preference": torch.tensor(shares, dtype=torch.float64)},
        ("chosen", "rejected", "sample"),
    )


@pytest.mark.parametrize("labels", ["soft", "soft_cross_entropy"])
def test_typo_pulls_soft_labels_by_what_they_miss(labels: str) -> None:
    batch = typo_batch([0.9, 0.2, 1.0, 0.0], [0.5, 1.5, -2.0, 0.3], [0.0] * 4, [0.0] * 4)
    slope = slope_of(build("typo", labels=labels, lam=0.0).loss(batch), batch)[..., 0] * 4
    expected = torch.sigmoid(torch.tensor([0.5, 1.5, -2.0, 0.3]).double()) - batch.columns["preference"]
    torch.testing.assert_close(slope[:, 0], expected)
    torch.testing.assert_close(slope[:, 1], -expected)


def test_typo_of_a_matched_label_costs_nothing_and_its_cross_entropy_does() -> None:
    share = 1 / (1 + math.exp(-0.5))
    batch = typo_batch([share], [0.5], [0.0], [0.0])
    assert float(build("typo", labels="soft", lam=0.0).loss(batch).detach()) == pytest.approx(0, abs=1e-15)
    assert build("typo", labels="soft_cross_entropy", lam=0.0).loss(batch) > 0.6


def test_typo_reads_the_reference_on_samples_only_and_reference_first() -> None:
    """On a pair the reference is ±5 here; KL(π_ref ‖ π) makes a sample of the reference likelier."""
    batch = typo_batch([1.0, 1.0], [0.5, 1.0], [-1.0, -2.0], [0.0, -1.0])
    loss = build("typo", lam=0.3).loss(batch)
    pairs = torch.nn.functional.softplus(-torch.tensor([0.5, 1.0])).mean()
    assert float(loss.detach()) == pytest.approx(float(pairs) + 0.3 * 1.0)
    slope = slope_of(loss, batch)
    torch.testing.assert_close(slope[:, 2, 0], torch.full((2,), -0.3 / 2, dtype=torch.float64))


def test_typo_learns_from_prompts_without_a_pair() -> None:
    batch = typo_batch([1.0, 1.0], [0.5, 1.0], [-1.0, -2.0], [0.0, -1.0])
    mask = batch.mask.clone()
    mask[0, :2], mask[1, 2] = False, False
    models = {name: TokenLogps(scored.logps, mask) for name, scored in batch.models.items()}
    apart = PreferenceBatch(models, batch.columns, batch.roles)
    loss = float(build("typo", lam=0.3).loss(apart).detach())
    assert loss == pytest.approx(math.log1p(math.exp(-1.0)) + 0.3 * 1.0)


REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([-0.3, 0.5, 0.1, 0.9], dtype=torch.float64)
PREFERENCE = torch.sigmoid(REWARD[:, None] - REWARD)


def test_odds_of_preferences_are_odds_of_their_policy() -> None:
    policy = bradley_terry_policy(PREFERENCE)
    torch.testing.assert_close(policy[:, None] / (policy[:, None] + policy), PREFERENCE)


def test_typo_goes_from_the_preferences_to_the_reference_and_keeps_what_is_right() -> None:
    found = desiderata(lambda lam: build("typo", lam=lam), (1e-5, 1.0, 1e4), REFERENCE, PREFERENCE)
    assert found.from_preferences < 1e-3
    assert found.from_reference < 1e-3
    assert found.unpreserved < 1e-6


@pytest.mark.parametrize(
    ("key", "argument", "given"), [("dpo", "beta", {}), ("ipo", "tau", {"tokens": "sum"})]
)
def test_dpo_and_ipo_reach_one_response_alone_and_leave_a_right_reference(key, argument, given) -> None:
    found = desiderata(
        lambda strength: build(key, **{argument: strength}, **given), (0.02, 1.0, 1e3), REFERENCE, PREFERENCE
    )
    assert found.from_preferences > 0.3
    assert found.from_reference < 1e-3
    assert found.unpreserved > 0.3


def test_weak_regularisation_leaves_dpo_the_best_response() -> None:
    assert float(fitted_policy(build("dpo", beta=0.02), REFERENCE, PREFERENCE)[3]) > 0.999


def test_slopes_in_probability_grow_without_bound_for_an_unlikely_rejected_response() -> None:
    policy = torch.tensor([[0.5, 0.1], [0.5, 1e-4]], dtype=torch.float64)
    reference = torch.tensor([[0.5, 0.1], [0.5, 0.1]], dtype=torch.float64)
    slope = probability_slopes(build("dpo", beta=0.1), policy, reference)
    torch.testing.assert_close(slope[:, 1] / slope[:, 0], -policy[:, 0] / policy[:, 1])
    assert float(slope[0, 0]) == pytest.approx(-0.1 * 0.5 / 0.5)


def omni(batch: PreferenceBatch, **arguments: object) -> Tensor:
    """The preference's rows without the anchor's."""
    return build("omni_dpo", **{"lam": 0.0, **arguments})(batch)[0].values


def scored_pairs(chosen: list[float], rejected: list[float], gap: float, low: float = 1.0) -> PreferenceBatch:
    batch = pair_batch(chosen, rejected)
    scores = torch.tensor([[low + gap, low]] * len(chosen), dtype=torch.float64)
    return PreferenceBatch(batch.models, {"score": scores})


def test_omni_without_weights_is_half_of_dpo_on_means() -> None:
    objective = build("omni_dpo", beta=2.0, eta=0.0, gamma=0.0, lam=0.0)
    batch = batch_for(objective)
    loss = objective.loss(batch)
    torch.testing.assert_close(loss, build("dpo_norm", beta=2.0).loss(batch) / 2)


def test_omni_weighs_by_the_gap_of_scores_and_by_what_is_not_fitted() -> None:
    plain = omni(scored_pairs([0.0], [0.0], 0.0), eta=0.0, gamma=0.0) * 2
    weights = [
        float((omni(scored_pairs([0.0], [0.0], gap), gamma=0.0) / plain).detach()) for gap in (0.1, 1, 5)
    ]
    assert 0.5 < weights[0] < weights[1] < weights[2] < 1
    for margin, weight in ((40.0, 0.0), (-40.0, 1.0)):
        batch = scored_pairs([margin], [0.0], 1.0)
        fit = omni(batch, eta=0.0) / omni(batch, eta=0.0, gamma=0.0)
        assert float(fit.detach()) == pytest.approx(weight, abs=1e-12)


def test_omni_measures_fit_without_the_reference() -> None:
    batch = scored_pairs([0.5], [0.0], 1.0)
    reference = torch.tensor([[[-9.0], [-2.0]]], dtype=torch.float64)
    policy = TokenLogps(batch.models["policy"].logps.detach().requires_grad_(), batch.mask)
    other = PreferenceBatch({"policy": policy, "reference": TokenLogps(reference, batch.mask)}, batch.columns)
    first, second = (omni(one) / omni(one, gamma=0.0) for one in (batch, other))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("ratio", "low", "active"), [(-0.5, 4.0, True), (0.0, 4.0, False), (0.5, 4.0, False), (-0.5, 1.0, False)]
)
def test_omni_anchors_good_responses_that_got_less_likely(ratio: float, low: float, active: bool) -> None:
    batch = scored_pairs([ratio], [0.0], 1.0, low)
    anchored, free = (build("omni_dpo", lam=lam).loss(batch) for lam in (0.5, 0.0))
    assert (float((anchored - free).detach()) != 0) is active
    difference = slope_of(anchored, batch) - slope_of(free, batch)
    assert float(difference[0, 0, 0]) == pytest.approx(-0.5 if active else 0.0, abs=1e-12)


def test_a_detached_weight_pulls_less_and_costs_the_same() -> None:
    batch = scored_pairs([0.2], [0.0], 1.0)
    free, held = (build("omni_dpo", detach_weight=held).loss(batch) for held in (False, True))
    assert torch.equal(free, held)
    assert slope_of(free, batch)[0, 0, 0] < slope_of(held, batch)[0, 0, 0] < 0


def test_the_target_of_exo_as_the_authors_have_it_is_not_normalised() -> None:
    epsilon, margin = math.exp(-10.0), 0.7
    q = 1 / (1 + math.exp(-margin))
    expected = q * math.log(q) + (1 - q) * (math.log(1 - q) + 10)
    objective = build("exo_pref", beta=1.0, smoothing=epsilon, normalised=False)
    assert float(objective.loss(pair_batch([margin], [0.0])).detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("offset", "expected"), [("log", 1.0986123), ("identity", 3.0), ("log_ratio", 1.3862944)]
)
def test_offsets_of_scores_four_and_one(offset: str, expected: float) -> None:
    objective = build("odpo", beta=1.0, alpha=1.0, offset=offset)
    batch = scored_pairs([0.0], [0.0], 3.0)
    assert float(objective.loss(batch).detach()) == pytest.approx(math.log1p(math.exp(expected)), rel=1e-7)
