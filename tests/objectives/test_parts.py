"""Weights, penalties, baselines and groups: the parts that methods are put together from."""

from __future__ import annotations

import pytest
import torch

from prefero.objectives import (
    Column,
    Compare,
    Each,
    EveryPair,
    Measured,
    Pair,
    PreferenceBatch,
    Ranking,
    Sets,
    Signal,
    TokenLogps,
    filled,
    from_config,
    log_ratio,
    primary,
)
from prefero.objectives.contrasts import Contrast
from prefero.objectives.links import squared
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED
from prefero.objectives.slots import wpo
from tests.objectives.batches import batch_for, build, pair_batch

pytestmark = pytest.mark.filterwarnings("ignore:Anomaly Detection")


@pytest.mark.parametrize(
    ("p", "observed", "expected"),
    [
        ([0.25] * 4, 0, 1.0),
        ([1.0, 0.0], 0, 1.0),
        ([0.9, 0.1], 0, 0.9 / 0.82),
        ([0.7, 0.3], 0, 0.7 / 0.58),
        ([0.7, 0.2, 0.1], 1, 0.2 / 0.54),
    ],
)
def test_wpo_weighs_by_what_the_policy_would_say(p: list[float], observed: int, expected: float) -> None:
    """One token: w = p(observed) / Σ p². It is not monotone in p(observed)."""
    distribution = torch.tensor(p, dtype=torch.float64)
    logps = distribution[observed].log().expand(1, 1, 1)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    signals = {
        LOG_SUM_P_SQUARED: distribution.square().sum().log().expand(1, 1, 1),
        LOG_MAX_P: distribution.max().log().expand(1, 1, 1),
    }
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask, signals)}, {"label": torch.ones(1, 1)}, ())
    each = primary(build("kto")).contrast
    comparisons = Compare(log_ratio("policy", "policy").sum(), each).comparisons(batch)
    assert float(wpo(clamp=None)(comparisons)) == pytest.approx(expected, rel=1e-12)
    assert float(wpo("greedy", clamp=None)(comparisons)) == pytest.approx(p[observed] / max(p), rel=1e-12)


def test_wpo_clamps_the_product() -> None:
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    logps = torch.tensor([[[0.7], [0.7]]]).double().log()
    signals = {LOG_SUM_P_SQUARED: torch.full((1, 2, 1), 0.54).double().log()}
    scored = TokenLogps(logps, mask, signals)
    batch = PreferenceBatch({"policy": scored, "reference": scored})
    comparisons = primary(build("dpo")).comparisons(batch)
    assert float(wpo()(comparisons)) == 1.0
    assert float(wpo(clamp=None)(comparisons)) == pytest.approx((0.7 / 0.54) ** 2)


def test_kto_compares_with_the_mean_over_mismatched_responses() -> None:
    objective = build("kto", beta=0.5, desirable=1.5, undesirable=0.7)
    batch = batch_for(objective, seed=4)
    view, there = batch.views["mismatched"], batch.mask.any(-1)
    ratio, drift = log_ratio().sum()(batch), log_ratio().sum()(view)
    baseline = (0.5 * drift.mean()).clamp(min=0)
    losses = torch.where(
        batch.columns["label"] > 0,
        1.5 * (1 - torch.sigmoid(0.5 * ratio - baseline)),
        0.7 * (1 - torch.sigmoid(baseline - 0.5 * ratio)),
    )
    torch.testing.assert_close(objective.loss(batch), losses[there].mean())


def test_kto_never_has_a_negative_baseline() -> None:
    objective = build("kto", beta=0.5)
    batch = batch_for(objective)
    view = batch.views["mismatched"]
    low = TokenLogps(view.models["policy"].logps - 2, view.mask)
    lower = TokenLogps(view.models["policy"].logps - 3, view.mask)
    losses = [
        objective.loss(
            PreferenceBatch(
                batch.models,
                batch.columns,
                (),
                {"mismatched": PreferenceBatch({**view.models, "policy": policy}, {}, ())},
            )
        )
        for policy in (low, lower)
    ]
    assert torch.equal(*losses)


def test_an_added_penalty_adds() -> None:
    both = from_config({"method": "dpo", "plus": {"nll": 0.2}}).double()
    batch = batch_for(both)
    expected = build("dpo").loss(batch) + 0.2 * build("nll").loss(batch)
    torch.testing.assert_close(both.loss(batch), expected)


def test_the_three_normalisations_of_the_likelihood_differ() -> None:
    batch = batch_for(build("dpo"))
    logps, mask = batch.models["policy"].logps[:, 0], batch.mask[:, 0]
    per_response = (logps * mask).sum(1)
    losses = [float(build("nll", tokens=tokens).loss(batch).detach()) for tokens in ("mean", "sum", "batch")]
    expected = [
        -(per_response / mask.sum(1)).mean(),
        -per_response.mean(),
        -per_response.sum() / mask.sum(),
    ]
    assert losses == pytest.approx([float(one.detach()) for one in expected], rel=1e-12)
    assert len({round(loss, 6) for loss in losses}) == 3


def test_one_group_with_the_mean_loss_is_the_mean() -> None:
    objective = build("group_robust", normalisation="group_mean", step_size=0.0)
    batch = batch_for(objective)
    (term,) = build("dpo")(batch)
    group = batch.columns["group"]
    means = [term.values[group == g].mean() for g in range(3) if (group == g).any()]
    torch.testing.assert_close(objective.loss(batch), sum(means) / 3)


RISK = Signal("risk", axes="example response")


def adds(contrast: Contrast) -> bool:
    return not isinstance(contrast, Ranking | Sets)


@pytest.mark.parametrize(
    "contrast", [Each(), EveryPair(), Ranking(), Sets(Column("score") - 1), Pair("b", "c")]
)
def test_whatever_stands_at_an_absent_response_reaches_no_gradient(contrast) -> None:
    """NaN in its column and in its signal, also inside the backward pass."""
    mask = torch.tensor([[[True], [True], [False]], [[True], [True], [True]]])
    risk = torch.tensor([[0.3, 0.7, torch.nan], [0.1, 0.2, 0.9]], requires_grad=True)
    columns = {
        "score": torch.tensor([[0.0, 2.0, torch.nan], [1.5, 0.5, 3.0]]),
        "rank": torch.tensor([[1, 0, 0], [1, 2, 0]]),
    }
    policy = TokenLogps(torch.zeros(mask.shape), mask, {RISK: risk})
    batch = PreferenceBatch({"policy": policy}, columns, ("a", "b", "c"))
    reward = Measured(RISK) * Column("score")
    with torch.autograd.detect_anomaly(check_nan=True):
        objective = Compare(
            reward,
            contrast,
            weight=lambda comparisons: comparisons.gap(reward).exp(),
            target=(lambda comparisons: comparisons.total(reward).exp()) if adds(contrast) else 0.0,
        )
        loss = objective.loss(batch)
        (slope,) = torch.autograd.grad(loss, risk)
    assert loss.isfinite()
    assert slope.isfinite().all()
    assert slope[0, 2] == 0
    assert slope[1].abs().sum() > 0


def test_a_weight_passes_over_the_penalties_of_a_sum() -> None:
    plain = build("dpo") + 0.2 * build("nll")
    weighted = filled(plain, "weight", wpo())
    batch = batch_for(weighted.double())
    (_, penalty), (_, same) = plain.double()(batch), weighted(batch)
    assert torch.equal(penalty.total, same.total)
    assert torch.equal(weighted(batch)[0].total, filled(build("dpo"), "weight", wpo())(batch)[0].total)


def test_the_order_of_the_slots() -> None:
    """weight · link(scale · (margin − target))."""
    batch = pair_batch([2.0], [0.5])
    objective = Compare(log_ratio().sum(), link=squared, weight=3.0, scale=2.0, target=0.25)
    assert float(objective.loss(batch).detach()) == pytest.approx(3 * (2 * (1.5 - 0.25)) ** 2)


def test_a_state_as_wide_as_the_longest_response_has_no_tokens_to_mask() -> None:
    mask = torch.tensor([[[True, False], [True, True]]])
    state, scalar = Signal("state", "example response"), Signal("scalar")
    numbers = torch.ones(1, 2, 2)
    batch = PreferenceBatch(
        {"policy": TokenLogps(torch.zeros(1, 2, 2), mask, {state: numbers, scalar: numbers})}
    )
    assert torch.equal(Measured(state)(batch), numbers)
    assert torch.equal(Measured(scalar)(batch), mask.float())
