"""Classifiers, anchors, transport, contrast with a likelihood, and the losses that a search found."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives import PreferenceBatch, TokenLogps, from_config
from tests.objectives.batches import batch_for, build, pair_batch, slope_of


def unpaired_batch(ratios: list[float], labels: list[float], **columns: Tensor) -> PreferenceBatch:
    """Single responses of one token with these log-ratios."""
    values = torch.tensor(ratios, dtype=torch.float64)[:, None, None]
    mask = torch.ones_like(values, dtype=torch.bool)
    models = {
        "policy": TokenLogps((values - 3).requires_grad_(), mask),
        "reference": TokenLogps(torch.full_like(values, -3.0), mask),
    }
    label = torch.tensor(labels, dtype=torch.float64)[:, None]
    return PreferenceBatch(models, {"label": label, **columns}, ())


def list_batch(ratios: list[list[float]], scores: list[list[float]]) -> PreferenceBatch:
    values = torch.tensor(ratios, dtype=torch.float64)[..., None]
    mask = torch.ones_like(values, dtype=torch.bool)
    models = {
        "policy": TokenLogps((values - 3).requires_grad_(), mask),
        "reference": TokenLogps(torch.full_like(values, -3.0), mask),
    }
    return PreferenceBatch(models, {"score": torch.tensor(scores, dtype=torch.float64)}, ())


def loss_of(key: str, batch: PreferenceBatch, **arguments: object) -> float:
    return float(build(key, **arguments).loss(batch).detach())


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# noise-contrastive alignment


def test_nca_pair_is_nca_of_two_at_a_cold_temperature() -> None:
    pair = pair_batch([0.7, -1.2], [0.1, 0.4])
    both = list_batch([[0.7, 0.1], [-1.2, 0.4]], [[1.0, 0.0], [1.0, 0.0]])
    assert loss_of("nca", both, beta=0.5, alpha=1e-3) == pytest.approx(loss_of("nca_pair", pair, beta=0.5))


def test_infonca_of_two_at_a_cold_temperature_is_dpo() -> None:
    pair = pair_batch([0.7, -1.2], [0.1, 0.4])
    both = list_batch([[0.7, 0.1], [-1.2, 0.4]], [[1.0, 0.0], [1.0, 0.0]])
    assert loss_of("infonca", both, beta=0.5, alpha=1e-3) == pytest.approx(loss_of("dpo", pair, beta=0.5))


def test_nca_stops_the_chosen_reward_and_bco_pair_does_not() -> None:
    """With the middle term left out, nca_pair would pull the chosen response up for ever."""
    far = pair_batch([50.0], [-50.0])
    up, _ = slope_of(build("nca_pair", beta=1.0).loss(far), far)[0, :, 0]
    assert float(up) == pytest.approx(0.5)
    at = pair_batch([math.log(2)], [-50.0])
    assert float(slope_of(build("nca_pair", beta=1.0).loss(at), at)[0, 0, 0]) == pytest.approx(0, abs=1e-12)
    assert float(slope_of(build("bco_pair", beta=1.0).loss(far), far)[0, 0, 0]) <= 0


def test_nca_halves_by_the_length_of_the_list_and_not_by_two() -> None:
    batch = list_batch([[0.2, -0.4, 0.9]], [[0.0, 0.0, 1.0]])
    expected = softplus(-0.9) + (softplus(0.2) + softplus(-0.4) + softplus(0.9)) / 3
    assert loss_of("nca", batch, beta=1.0, alpha=1e-3) == pytest.approx(expected)


# classifiers and anchors


def test_bco_moves_its_boundary_before_it_is_used_and_keeps_the_mean_over_steps() -> None:
    objective = build("bco", beta=1.0).train()
    first = unpaired_batch([1.0, 3.0], [1.0, -1.0])
    assert float(objective.loss(first).detach()) == pytest.approx((softplus(1) + softplus(1)) / 2)
    second = unpaired_batch([-2.0, -2.0, -2.0], [1.0, -1.0, -1.0])
    shift = (2.0 - 2.0) / 2  # of the two steps' means, not of the five responses
    expected = (softplus(-(-2 - shift)) + 2 * softplus(-2 - shift)) / 3
    assert float(objective.loss(second).detach()) == pytest.approx(expected)
    held = objective.eval().loss(first)
    assert float(held.detach()) == pytest.approx((softplus(-1) + softplus(3)) / 2), "evaluation moves nothing"


def test_bcos_boundary_has_no_gradient() -> None:
    batch = unpaired_batch([1.0, 3.0], [1.0, -1.0])
    slope = slope_of(build("bco", beta=1.0).loss(batch), batch)[:, 0, 0]
    torch.testing.assert_close(slope, torch.tensor([-sigmoid(1) / 2, sigmoid(1) / 2]).double())


def test_bco_weighs_undesirable_responses_alone_by_the_odds_of_their_prompts() -> None:
    prompts = torch.tensor([0.9, 0.8, 0.999, 0.01]).double()
    batch = unpaired_batch([0.0] * 4, [1.0, -1.0, -1.0, -1.0], desirability=prompts)
    expected = math.log(2) * (1 + 4 + 10 + 0.5) / 4
    assert loss_of("bco", batch, prompts="matched") == pytest.approx(expected)


def test_apo_zero_pulls_up_and_down_and_apo_down_pulls_both_down() -> None:
    batch = pair_batch([0.4], [0.1])
    zero = slope_of(build("apo_zero", beta=1.0).loss(batch), batch)[0, :, 0]
    assert zero[0] < 0 < zero[1]
    far = pair_batch([0.4], [-9.0])
    down = slope_of(build("apo_down", beta=1.0).loss(far), far)[0, :, 0]
    assert down[0] > 0, "once the pair is won, the chosen response falls"
    assert down[1] > 0


def test_apo_zero_without_pairs_is_kto_without_a_baseline() -> None:
    batch = unpaired_batch([0.5, -0.2], [1.0, -1.0])
    expected = (2.0 * (1 - sigmoid(0.5)) + 0.5 * sigmoid(-0.2)) / 2
    found = loss_of("apo_zero_unpaired", batch, beta=1.0, desirable=2.0, undesirable=0.5)
    assert found == pytest.approx(expected)


# transport


def test_aot_pairs_quantiles_and_not_examples() -> None:
    margins, reference = [2.0, -1.0, 0.5], [0.3, 0.9, -0.6]
    policy = torch.tensor([margins, [0.0] * 3], dtype=torch.float64).T[..., None]
    of_reference = torch.tensor([reference, [0.0] * 3], dtype=torch.float64).T[..., None]
    mask = torch.ones_like(policy, dtype=torch.bool)
    models = {
        "policy": TokenLogps(policy.requires_grad_(), mask),
        "reference": TokenLogps(of_reference, mask),
    }
    batch = PreferenceBatch(models)
    gaps = [high - low for high, low in zip(sorted(margins), sorted(reference), strict=True)]
    assert loss_of("aot", batch, beta=1.0) == pytest.approx(sum(softplus(-gap) for gap in gaps) / 3)
    unsorted = [high - low for high, low in zip(margins, reference, strict=True)]
    assert loss_of("dpo", batch, beta=1.0) == pytest.approx(sum(softplus(-gap) for gap in unsorted) / 3)


@pytest.mark.parametrize("key", ["aot", "aot_unpaired"])
def test_one_pair_alone_is_dpo(key: str) -> None:
    batch = pair_batch([0.7], [-0.4])
    assert loss_of(key, batch, beta=0.5) == pytest.approx(loss_of("dpo", batch, beta=0.5))


def test_aot_unpaired_does_not_see_which_rejected_response_belongs_to_which_chosen_one() -> None:
    objective = build("aot_unpaired", beta=1.0)
    first, second = pair_batch([2.0, -1.0], [0.3, 0.9]), pair_batch([2.0, -1.0], [0.9, 0.3])
    torch.testing.assert_close(objective.loss(first), objective.loss(second))
    plain = build("dpo", beta=1.0)
    assert not torch.allclose(plain.loss(first), plain.loss(second))


def test_ties_among_quantiles_share_no_gradient_twice() -> None:
    batch = pair_batch([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    slope = slope_of(build("aot_unpaired", beta=1.0).loss(batch), batch)
    torch.testing.assert_close(slope[:, 0, 0], torch.full((3,), -sigmoid(-1) / 3).double())


# contrast with a likelihood


def test_orpo_of_the_whole_text_differs_from_that_of_the_response_by_the_likelihood_alone() -> None:
    whole = build("orpo", text="whole", lam=0.3)
    batch = batch_for(whole)
    plain = build("orpo", text="response", lam=0.3)
    view = batch.views["with_prompt"]
    of_whole = -view.models["policy"].logps[:, 0].sum() / view.lengths[:, 0].sum()
    of_response = -batch.models["policy"].logps[:, 0].sum() / batch.lengths[:, 0].sum()
    torch.testing.assert_close(whole.loss(batch) - plain.loss(batch), of_whole - of_response)


def test_slic_is_flat_in_the_preference_once_the_pair_is_won() -> None:
    won = pair_batch([0.5], [-0.6])
    assert torch.equal(slope_of(build("slic", lam=0.0).loss(won), won), torch.zeros(1, 2, 1).double())
    lost = pair_batch([0.5], [0.6])
    assert slope_of(build("slic", lam=0.0).loss(lost), lost)[0, :, 0].tolist() == [-1.0, 1.0]


# losses that a search found


@pytest.mark.parametrize(("tau", "slope"), [(0.05, -0.75 + 20 / 4 * (1 - math.log(2))), (1.0, -0.6733)])
def test_discopop_starts_uphill_at_a_cold_temperature(tau: float, slope: float) -> None:
    """A modulation without a gradient would start downhill at any temperature."""
    batch = pair_batch([0.0], [0.0])
    loss = build("discopop", beta=1.0, tau=tau).loss(batch)
    assert float(loss.detach()) == pytest.approx((1 + math.log(2)) / 2)
    assert float(slope_of(loss, batch)[0, 0, 0]) == pytest.approx(slope, abs=1e-4)


def test_discopop_is_exponential_on_the_right_side_and_logistic_on_the_wrong_one() -> None:
    assert loss_of("discopop", pair_batch([3.0], [0.0]), beta=1.0) == pytest.approx(math.exp(-3), rel=1e-9)
    assert loss_of("discopop", pair_batch([-3.0], [0.0]), beta=1.0) == pytest.approx(softplus(3), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("key", ["discopop", "cell", "dbaql", "aql", "aqfl", "padll", "pfl"])
def test_found_losses_stay_finite_far_from_the_reference(key: str, dtype: torch.dtype) -> None:
    """σ(z/τ) e^{−z} as a product is 0 times infinity for a pair that is far on the wrong side."""
    ratios = torch.tensor([[[2000.0], [0.0]], [[0.0], [2000.0]]], dtype=dtype)
    logps = (ratios - 2100).requires_grad_()
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    reference = torch.full_like(logps, -2100.0).detach()
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(reference, mask)})
    loss = build(key, beta=0.05).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


@pytest.mark.parametrize("key", ["dbaql", "aql", "aqfl"])
@pytest.mark.parametrize("count", [1, 4])
def test_statistics_of_equal_margins_have_finite_slopes(key: str, count: int) -> None:
    """The standard deviation of equal margins, as at the start of training, has an infinite slope."""
    batch = pair_batch([0.0] * count, [0.0] * count)
    assert slope_of(build(key).loss(batch), batch).isfinite().all()


def test_padll_halves_the_wrong_side() -> None:
    wrong, right = pair_batch([-0.2], [0.0]), pair_batch([0.2], [0.0])
    assert loss_of("padll", wrong, beta=1.0) == pytest.approx(0.45 * softplus(0.2))
    assert loss_of("padll", right, beta=1.0) == pytest.approx(0.9 * softplus(-0.2))


def test_pfl_asks_the_policy_alone_which_response_is_likelier() -> None:
    """Under the reference-adjusted margin the two pairs would change places."""
    logps = torch.tensor([[[-1.0], [-2.0]], [[-2.0], [-1.0]]], dtype=torch.float64).requires_grad_()
    reference = torch.tensor([[[-1.0], [-3.0]], [[-3.5], [-1.0]]], dtype=torch.float64)
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(reference, mask)})
    (term,) = build("pfl", beta=0.5)(batch)
    torch.testing.assert_close(term.values.tolist(), [softplus(0.5) / 2, 2 * (1 - 0.75)])


# rewards reshaped, for any method that has a log-ratio


def test_a_reshaped_reward_is_the_method_of_its_name_and_goes_with_other_links() -> None:
    bent = from_config({"method": "dpo", "reward": {"f_dpo": {"divergence": "forward_kl"}}}).double()
    batch = batch_for(bent)
    torch.testing.assert_close(bent.loss(batch), build("f_dpo", divergence="forward_kl").loss(batch))
    short = from_config({"method": "dpo", "reward": {"ld_dpo": {"alpha": 0.2}}}).double()
    torch.testing.assert_close(short.loss(batch), build("ld_dpo", alpha=0.2).loss(batch))
    squared = from_config({"method": "ipo", "tokens": "sum", "reward": {"f_dpo": {"divergence": "jsd"}}})
    (term,) = squared.double()(batch)
    ratio = (batch.models["policy"].logps - batch.models["reference"].logps).sum(-1)
    gap = torch.nn.functional.logsigmoid(ratio).diff(dim=1)[:, 0]  # chosen first
    torch.testing.assert_close(term.values, (-gap - 5).square())


def test_a_reshaped_reward_leaves_penalties_and_the_method_itself_alone() -> None:
    plain = from_config({"method": "irpo", "alpha": 0.7}).double()
    short = from_config({"method": "irpo", "alpha": 0.7, "reward": {"ld_dpo": {"alpha": 0.0}}}).double()
    batch = batch_for(plain)
    first, second = plain(batch), short(batch)
    assert not torch.equal(first[0].values, second[0].values)
    assert torch.equal(first[1].values, second[1].values)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"method": "simpo", "reward": "f_dpo"}, "no log-ratio of whole responses"),
        ({"method": "aot", "reward": "ld_dpo"}, "no log-ratio of whole responses"),
        ({"method": "f_dpo", "reward": "f_dpo"}, "already is the reward"),
        ({"method": "kto", "reward": "ld_dpo"}, "responses without roles"),
        ({"method": "exo_rw", "reward": "f_dpo"}, "no comparisons of responses"),
    ],
    ids=lambda one: str(one),
)
def test_a_reward_that_cannot_be_reshaped_is_refused(config: dict, reason: str) -> None:
    with pytest.raises(PreferoError, match=reason):
        from_config(config)
