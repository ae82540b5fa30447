"""Where one method becomes another, or a number that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st

from prefero.objectives import Equal, PreferenceBatch, TokenLogps, primary
from prefero.objectives.signals import LOG_SUM_P_SQUARED, forward_kl
from tests.objectives.batches import ARGUMENTS, KEYS, batch_for, build, entry, pair_batch, slope_of, slopes

SPECIAL_CASES = [(key, equal) for key in KEYS for equal in entry(key).equals]


@pytest.mark.parametrize(("key", "equal"), SPECIAL_CASES, ids=lambda one: str(one))
def test_a_special_case_is_the_other_method(key: str, equal: Equal) -> None:
    at, given = {**ARGUMENTS.get(key, {}), **equal.at}, dict(equal.given)
    other = entry(equal.method).parameters
    shared = {
        name: value for name, value in entry(key).defaults.items() if name in other and name not in given
    }
    first, second = build(key, **at), build(equal.method, **{**shared, **at_of(at, other, given), **given})
    batch = batch_for(first + second)
    if "group" in batch.columns:
        batch.columns["group"].zero_()
    if "tie" in batch.columns:
        batch.columns["tie"].zero_()
    one, two = first.loss(batch), second.loss(batch)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    for slope, expected in zip(slopes(one, batch), slopes(two, batch), strict=True):
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


def at_of(at, other, given) -> dict[str, object]:
    """The arguments of the special case that the other method takes as well."""
    return {name: value for name, value in at.items() if name in other and name not in given}


def test_equal_policy_and_reference_start_at_log_two() -> None:
    start = pair_batch([0.0, 0.0], [0.0, 0.0])
    for key in ("dpo", "cdpo", "rdpo", "dpop", "f_dpo", "ld_dpo", "r_dpo", "dr_dpo", "beta_dpo", "wpo"):
        columns = {"pair_noise": torch.tensor([0.3, 0.6])}
        signals = {LOG_SUM_P_SQUARED: start.models["policy"].logps.detach()}
        policy = TokenLogps(start.models["policy"].logps, start.mask, signals)
        batch = PreferenceBatch({**start.models, "policy": policy}, columns)
        assert float(build(key).loss(batch).detach()) == pytest.approx(math.log(2), rel=1e-12), key


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jsd", "alpha"])
def test_f_dpo_starts_at_log_two_with_a_slope_of_f_second_of_one(divergence: str) -> None:
    batch = pair_batch([0.0], [0.0])
    loss = build("f_dpo", beta=0.4, divergence=divergence).loss(batch)
    assert float(loss.detach()) == pytest.approx(math.log(2), rel=1e-12)
    curvature = 0.5 if divergence == "jsd" else 1.0
    assert float(slope_of(loss, batch)[0, 0, 0]) == pytest.approx(-0.4 * curvature / 2, rel=1e-12)


@pytest.mark.parametrize("divergence", ["forward_kl", "jsd", "alpha"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ratio", [200.0, -200.0])
def test_f_dpo_stays_finite_far_from_the_reference(divergence: str, dtype: torch.dtype, ratio: float) -> None:
    ratios = torch.tensor([[[ratio], [0.0]], [[0.0], [ratio]]], dtype=dtype)
    logps = (ratios - 300).requires_grad_()
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    reference = torch.full_like(logps, -300.0).detach()
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(reference, mask)})
    loss = build("f_dpo", divergence=divergence).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


HAND = [
    ("dpo", {"beta": 0.5}, [1.0], [-1.0], 0.313261687518),
    ("ipo", {"tau": 0.1, "tokens": "sum"}, [0.0], [0.0], 25.0),
    ("dpop", {"beta": 0.1, "lam": 5.0}, [-1.0], [-3.0], 0.8543552444685271),
    ("todo", {"beta": 1.0, "alpha": 0.5}, [0.0], [0.0], 0.9740769841801067),
]


@pytest.mark.parametrize(("key", "arguments", "chosen", "rejected", "expected"), HAND)
def test_a_number_worked_out_by_hand(key, arguments, chosen, rejected, expected) -> None:
    batch = pair_batch(chosen, rejected, {"tie": torch.tensor([False])})
    assert float(build(key, **arguments).loss(batch).detach()) == pytest.approx(expected, rel=1e-6)


def test_a_tie_worked_out_by_hand() -> None:
    batch = pair_batch([0.0], [0.0], {"tie": torch.tensor([True])})
    loss = build("todo", beta=1.0, alpha=0.5).loss(batch)
    likelihood = (math.e - 1) / (1 + math.exp(0.5)) ** 2
    assert float(loss.detach()) == pytest.approx(-math.log(likelihood), rel=1e-12)


def test_simpo_at_equal_averages_costs_log_one_plus_e_to_the_margin() -> None:
    loss = build("simpo", gamma=1.0).loss(pair_batch([0.0, 0.0], [0.0, 0.0]))
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.e), rel=1e-12)


def test_length_explains_the_label_away_in_r_dpo() -> None:
    """Equal log-ratios, the chosen response 50 tokens longer, α = .02: z = +1. A minus sign gives 1.3133."""
    mask = torch.zeros(1, 2, 51, dtype=torch.bool)
    mask[0, 0], mask[0, 1, 0] = True, True
    logps = torch.zeros(1, 2, 51, dtype=torch.float64)
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(logps, mask)})
    assert float(build("r_dpo", alpha=0.02).loss(batch)) == pytest.approx(0.3132616875, rel=1e-9)


def test_only_the_tail_of_the_longer_response_weighs_less_in_ld_dpo() -> None:
    ratios = torch.tensor([[[0.1, 0.2, 0.3], [-0.1, 0.0, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    zero = torch.zeros_like(ratios)
    batch = PreferenceBatch({"policy": TokenLogps(ratios, mask), "reference": TokenLogps(zero, mask)})
    margin = primary(build("ld_dpo", beta=1.0, alpha=0.5)).comparisons(batch).margins
    assert float(margin) == pytest.approx(0.1 + 0.25 + 0.1)


def test_todo_likelihoods_add_up_to_one() -> None:
    mu = torch.linspace(-4, 4, 9).double()
    likelihood = []
    for chosen, tie in ((mu, False), (-mu, False), (mu, True), (-mu, True)):
        batch = pair_batch(chosen.tolist(), [0.0] * 9, {"tie": torch.full((9,), tie)})
        (term,) = build("todo", beta=1.0, alpha=0.5)(batch)
        likelihood.append((-term.values).exp().detach())
    win, lose, tie, swapped = likelihood
    torch.testing.assert_close(win + lose + tie, torch.ones(9).double())
    torch.testing.assert_close(tie, swapped)


def test_tdpo_variants_agree_in_value_at_alpha_one_and_differ_in_gradient() -> None:
    first, second = build("tdpo1", beta=0.2), build("tdpo2", beta=0.2, alpha=1.0)
    batch = batch_for(first)
    one, other = first.loss(batch), second.loss(batch)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    kl = batch.models["policy"].signals[forward_kl()]
    (free,), (held,) = torch.autograd.grad(one, kl), torch.autograd.grad(other, kl)
    assert (free[:, 0][batch.mask[:, 0]] < 0).all(), "tdpo1 pushes the chosen divergence up"
    assert torch.equal(held[:, 0], torch.zeros_like(held[:, 0])), "tdpo2 leaves it alone"
    assert (held[:, 1][batch.mask[:, 1]] > 0).all()
    torch.testing.assert_close(free[:, 1], held[:, 1])


def test_rdpo_is_unbiased_under_flips() -> None:
    batch = pair_batch([2.0, -1.0, 0.3], [0.0, 0.5, 0.3])
    swapped = PreferenceBatch(batch.models, {}, ("rejected", "chosen"))
    rate, robust = 0.2, build("rdpo", flip_rate=0.2)
    (right,), (wrong,), (plain,) = robust(batch), robust(swapped), build("dpo")(batch)
    torch.testing.assert_close((1 - rate) * right.values + rate * wrong.values, plain.values)


def test_rdpo_is_unbounded_below_and_cdpo_is_not() -> None:
    far = pair_batch([500.0], [-500.0])
    assert float(build("rdpo", flip_rate=0.2).loss(far).detach()) < 0
    assert float(build("cdpo", smoothing=0.2).loss(far).detach()) > 0


@given(st.floats(-30, 30), st.floats(0.05, 3))
def test_dpo_of_a_flipped_pair_differs_by_the_margin(margin: float, beta: float) -> None:
    batch = pair_batch([margin], [0.0])
    flipped = PreferenceBatch(batch.models, {}, ("rejected", "chosen"))
    objective = build("dpo", beta=beta)
    difference = objective.loss(batch) - objective.loss(flipped)
    assert float(difference.detach()) == pytest.approx(-beta * margin, abs=1e-9)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), st.floats(0.05, 20))
def test_dr_dpo_lies_between_the_smallest_and_the_mean_loss(margins: list[float], beta_prime: float) -> None:
    batch = pair_batch(margins, [0.0] * len(margins))
    losses = build("dpo")(batch)[0].values.detach()
    loss = float(build("dr_dpo", beta_prime=beta_prime).loss(batch).detach())
    assert float(losses.min()) - 1e-9 <= loss <= float(losses.mean()) + 1e-9


@given(st.floats(-15, 15))
def test_exo_is_no_divergence_below_zero_and_zero_at_its_target(margin: float) -> None:
    objective = build("exo_pref", beta=1.0, smoothing=0.1)
    assert float(objective.loss(pair_batch([margin], [0.0])).detach()) >= -1e-12
    target = math.log(0.9 / 0.1)
    assert float(objective.loss(pair_batch([target], [0.0])).detach()) == pytest.approx(0, abs=1e-12)


def test_a_reference_of_another_kind_changes_the_loss_only_through_its_margin() -> None:
    """A constant per prompt on both reference log-probabilities changes nothing."""
    objective = build("dpo")
    batch = batch_for(objective)
    shift = torch.tensor([1.0, -2.0, 3.0, 0.5, 9.0, -7.0]).double()[:, None, None]
    reference = batch.models["reference"]
    first = torch.zeros_like(reference.logps)
    first[..., 0] = 1
    moved = TokenLogps(reference.logps + shift * first, reference.mask)
    shifted = PreferenceBatch({**batch.models, "reference": moved})
    torch.testing.assert_close(objective.loss(batch), objective.loss(shifted))


def test_simpo_reads_no_reference_and_no_length() -> None:
    """Every token twice: the same mean, so the same loss."""
    objective = build("simpo")
    batch = batch_for(objective)
    policy = batch.models["policy"]
    twice = TokenLogps(policy.logps.repeat(1, 1, 2), policy.mask.repeat(1, 1, 2))
    torch.testing.assert_close(objective.loss(batch), objective.loss(PreferenceBatch({"policy": twice})))
