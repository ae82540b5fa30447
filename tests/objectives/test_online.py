"""Games, exploration, rounds, groups and prompts: the checks that tell each method from its near misses."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from prefero.objectives import Needs, PreferenceBatch, TokenLogps, dry_run, method
from prefero.objectives.presets.iterative import drift, online_kl
from prefero.objectives.presets.policy_gradients import group_advantage, k3
from prefero.theory.games import regularised_equilibrium
from tests.objectives.batches import batch_for, build, pair_batch, slope_of

PAIR = ("chosen", "rejected")
BOTH: dict = {"policy": frozenset(), "reference": frozenset()}


def needs(roles=PAIR, *columns: str, models: tuple[str, ...] = (), views=()) -> Needs:
    return Needs(roles, frozenset(columns), BOTH | dict.fromkeys(models, frozenset()), dict(views))


SAMPLED = (*PAIR, "sample")
GROUP = needs((), "score", models=("behaviour",))

NEEDS = {
    "sppo": needs(PAIR, "win_rate"),
    "dno": needs(PAIR, "win_rate"),
    "inpo_nash": needs(models=("previous",)),
    "online_ipo": needs(PAIR, "win_rate"),
    "spac": needs(SAMPLED),
    "ofs_dpo": needs(models=("slow",)),
    "xpo": needs(SAMPLED),
    "selm": needs(SAMPLED),
    "vpo": needs(),
    "hypo": needs(SAMPLED),
    "irpo": needs(),
    "pessimistic_dpo": needs(PAIR, "uncertainty"),
    "optune_wdpo": needs(PAIR, "score"),
    "upo": needs(PAIR, "score"),
    "rso": needs(),
    "group_dpo": needs((), "score"),
    "group_dpo_grpo": GROUP,
    "mo_grpo": GROUP,
    "mapl_intra": needs(("chosen",), views={"contradicted": needs(("chosen",))}),
    "mapl_inter": needs(views={"weaker": needs()}),
    "mapl": needs(views={"contradicted": needs(("chosen",)), "weaker": needs()}),
}


@pytest.mark.parametrize("key", sorted(NEEDS))
def test_what_a_method_needs(key: str) -> None:
    assert dry_run(build(key)) == NEEDS[key]


def test_an_argument_can_change_what_is_needed() -> None:
    assert dry_run(build("sppo", labels="hard")) == needs()
    assert dry_run(build("vpo", calibration="sample")) == needs(SAMPLED)
    assert dry_run(build("upo", labels="flip_rate")).columns == {"score", "flip_rate"}
    assert dry_run(build("rso", loss="hinge")).models == {"policy": frozenset()}
    assert dry_run(build("mo_grpo", advantage="given")).columns == {"advantage"}
    three = dry_run(build("hypo", samples=3, baseline="leave_one_out"))
    assert three.roles == (*PAIR, "sample_1", "sample_2", "sample_3")


def of_roles(ratios: list[list[float]], roles: tuple[str, ...], **columns: Tensor) -> PreferenceBatch:
    """Two tokens a response, with these summed log-ratios; the reference gives −3 to each token."""
    policy = torch.tensor(ratios, dtype=torch.float64)[..., None] / 2 - 3
    policy = policy.expand(-1, -1, 2).clone().requires_grad_()
    mask = torch.ones_like(policy, dtype=torch.bool)
    reference = torch.full_like(policy, -3.0).detach()
    models = {"policy": TokenLogps(policy, mask), "reference": TokenLogps(reference, mask)}
    return PreferenceBatch(models, columns, roles)


def column(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# games


def test_sppo_at_the_start_costs_half_the_squared_targets() -> None:
    """Without the ½ it would be 80000, with TRL's hard labels 250000 or 500000."""
    batch = pair_batch([0.0], [0.0], {"win_rate": column([0.7, 0.3])})
    assert float(build("sppo", beta=0.001).loss(batch).detach()) == pytest.approx(40000)
    assert float(build("sppo", beta=0.001, labels="hard").loss(batch).detach()) == pytest.approx(250000)


def test_sppo_pulls_a_response_whatever_the_other_is_unlike_a_difference_of_rewards() -> None:
    objective = build("sppo", beta=0.1)
    slopes = [
        slope_of(objective.loss(batch), batch)[0, 0, 0]
        for batch in (
            pair_batch([0.5], [other], {"win_rate": column([0.7, rate])})
            for other, rate in ((0.0, 0.3), (5.0, 0.9))
        )
    ]
    assert torch.equal(slopes[0], slopes[1])
    assert float(slopes[0]) == pytest.approx(0.5 - 0.2 / 0.1)


def test_sppo_with_even_win_rates_only_holds_the_policy_where_it_is() -> None:
    batch = pair_batch([0.4], [-0.6], {"win_rate": column([0.5, 0.5])})
    assert float(build("sppo").loss(batch).detach()) == pytest.approx((0.4**2 + 0.6**2) / 2)


def test_dno_is_symmetric_and_starts_at_log_two_whatever_the_label() -> None:
    objective = build("dno", eta=0.5)
    batch = pair_batch([0.3], [-0.2], {"win_rate": column([0.9, 0.2])})
    swapped = pair_batch([-0.2], [0.3], {"win_rate": column([0.2, 0.9])})
    torch.testing.assert_close(objective.loss(batch), objective.loss(swapped))
    start = pair_batch([0.0], [0.0], {"win_rate": column([0.9, 0.2])})
    assert float(objective.loss(start).detach()) == pytest.approx(math.log(2))


def test_dno_regresses_the_margin_on_the_gap_of_win_rates_not_on_its_logit() -> None:
    gap, eta = 0.7, 0.5
    batch = pair_batch([gap / eta], [0.0], {"win_rate": column([0.9, 0.2])})
    loss = build("dno", eta=eta).loss(batch)
    assert float(slope_of(loss, batch).abs().max()) == pytest.approx(0, abs=1e-12)
    z = 1 / (1 + math.exp(-gap))
    assert float(loss.detach()) == pytest.approx(-z * math.log(z) - (1 - z) * math.log(1 - z))


def with_model(batch: PreferenceBatch, **models: float | TokenLogps) -> PreferenceBatch:
    """More models; a number is the log-probability of every token."""
    mask = batch.mask
    more = {
        name: one
        if isinstance(one, TokenLogps)
        else TokenLogps(torch.full_like(mask, one, dtype=torch.float64), mask)
        for name, one in models.items()
    }
    return replace(batch, models={**batch.models, **more})


def test_inpo_at_the_start_costs_the_squared_target_of_a_sum() -> None:
    batch = with_model(pair_batch([0.0], [0.0]), previous=-3.0)
    assert float(build("inpo_nash").loss(batch).detach()) == pytest.approx(4444.4444, rel=1e-6)


def test_inpo_without_the_fixed_reference_is_ipo_against_the_previous_policy() -> None:
    objective = build("inpo_nash", mixture=0.0, eta=0.2)
    batch = batch_for(objective)
    previous = replace(batch, models={**batch.models, "reference": batch.models["previous"]})
    other = build("ipo", tau=0.2, tokens="sum")
    torch.testing.assert_close(objective.loss(batch), other.loss(previous))


def test_online_ipo_divides_the_gap_of_win_rates_by_beta() -> None:
    start = pair_batch([0.0], [0.0], {"win_rate": column([0.9, 0.4])})
    assert float(build("online_ipo", beta=0.1).loss(start).detach()) == pytest.approx(25)
    swapped = pair_batch([0.0], [0.0], {"win_rate": column([0.4, 0.9])})
    assert float(build("online_ipo", beta=0.1).loss(swapped).detach()) == pytest.approx(25)


def test_spac_pushes_its_own_samples_down_by_the_same_amount_everywhere() -> None:
    batch = of_roles([[0.3, -0.2, 1.5], [0.1, 0.4, -2.0]], SAMPLED)
    slope = slope_of(build("spac", lam=0.5).loss(batch), batch)
    torch.testing.assert_close(slope[:, 2], torch.full((2, 2), 0.5).double())
    relative = slope_of(build("spac", lam=0.5, relative=True).loss(batch), batch)
    torch.testing.assert_close(relative[:, 0] - slope[:, 0], torch.full((2, 2), -0.5).double())


@pytest.mark.parametrize("relative", [False, True])
def test_smooth_spac_is_bounded_below_and_has_half_the_pull_at_the_start(relative: bool) -> None:
    far = of_roles([[0.0, 0.0, -900.0]], SAMPLED)
    options = {"lam": 0.0, "relative": relative}
    assert float(build("spac", smooth=True, **options).loss(far).detach()) >= 0
    assert float(build("spac", **options).loss(far).detach()) == pytest.approx(-900)
    start = of_roles([[0.0, 0.0, 0.0]], SAMPLED)
    slope = slope_of(build("spac", smooth=True, **options).loss(start), start)
    torch.testing.assert_close(slope[0, 2], torch.full((2,), 0.5).double())


def test_spac_without_samples_is_dpo() -> None:
    batch = of_roles([[0.3, -0.2, 1.5]], SAMPLED)
    mask = batch.mask.clone()
    mask[:, 2] = False
    bare = replace(batch, models={name: TokenLogps(one.logps, mask) for name, one in batch.models.items()})
    torch.testing.assert_close(build("spac", lam=2.0).loss(bare), 2 * build("dpo").loss(bare))


def fast_and_slow() -> tuple[PreferenceBatch, Tensor, Tensor]:
    batch = pair_batch([0.7, -0.4], [0.2, 0.9])
    slow = torch.tensor([[[-2.5], [-2.0]], [[-3.3], [-4.0]]], dtype=torch.float64).requires_grad_()
    full = with_model(batch, slow=TokenLogps(slow, batch.mask))
    return full, full.models["policy"].logps, slow


def test_both_models_of_ofs_dpo_are_pushed_towards_the_chosen_and_the_terms_do_not_cancel() -> None:
    batch, fast, slow = fast_and_slow()
    beta, alpha = 0.3, 0.5
    loss = build("ofs_dpo", beta=beta, alpha=alpha).loss(batch)
    by_fast, by_slow = torch.autograd.grad(loss, [fast, slow])

    def lost(first: Tensor, second: Tensor) -> Tensor:
        gap = (first - second).detach()[..., 0]
        return torch.sigmoid(-beta * (gap[:, 0] - gap[:, 1]))

    reference = batch.models["reference"].logps
    coupling = alpha * lost(fast, slow)
    torch.testing.assert_close(by_fast[:, 0, 0], -beta * (lost(fast, reference) + coupling) / 2)
    torch.testing.assert_close(by_slow[:, 0, 0], -beta * (lost(slow, reference) + coupling) / 2)
    assert (by_fast[:, 0] < 0).all()
    assert (by_slow[:, 0] < 0).all()


def test_ofs_dpo_without_coupling_is_two_runs_of_dpo() -> None:
    batch, _, _ = fast_and_slow()
    swapped = replace(batch, models={**batch.models, "policy": batch.models["slow"]})
    both = build("dpo").loss(batch) + build("dpo").loss(swapped)
    torch.testing.assert_close(build("ofs_dpo", alpha=0.0).loss(batch), both)


def test_the_slow_model_is_not_pulled_ahead_for_ever() -> None:
    batch = pair_batch([0.0], [500.0])
    slow = torch.tensor([[[0.0], [0.0]]], dtype=torch.float64).requires_grad_()
    batch = with_model(batch, slow=TokenLogps(slow, batch.mask))
    chased = [
        torch.autograd.grad(build("ofs_dpo", beta=1.0, clamp=clamp).loss(batch), slow)[0][0, 0, 0]
        for clamp in (10.0, None)
    ]
    start = -0.5
    assert float(chased[0]) == pytest.approx(start)
    assert float(chased[1]) == pytest.approx(start - 0.5)


def game() -> tuple[Tensor, Tensor]:
    """A preference matrix with a cycle, and a reference."""
    beats = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=torch.float64)
    return beats, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def all_pairs(columns: dict[str, Tensor], **policies: Tensor) -> PreferenceBatch:
    """Every ordered pair of three one-token responses under policies given by their probabilities."""
    first, second = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    places = torch.stack([first, second], 1)
    mask = torch.ones(9, 2, 1, dtype=torch.bool)
    models = {
        name: TokenLogps(probability.log()[places][..., None], mask) for name, probability in policies.items()
    }
    return PreferenceBatch(models, {name: values[places] for name, values in columns.items()})


def test_the_equilibrium_of_the_regularised_game_costs_nothing_in_online_ipo() -> None:
    beats, reference = game()
    for beta in (0.3, 1.0):
        policy = regularised_equilibrium(beats, reference, beta)
        batch = all_pairs({"win_rate": beats @ policy}, policy=policy, reference=reference)
        assert float(build("online_ipo", beta=beta).loss(batch)) == pytest.approx(0, abs=1e-20)
    even = torch.full((3,), 0.5, dtype=torch.float64)
    batch = all_pairs({"win_rate": even}, policy=reference, reference=reference)
    assert float(build("online_ipo").loss(batch)) == 0


def test_inpos_labels_of_the_previous_policys_samples_lead_to_the_step_of_mirror_descent() -> None:
    """π ∝ π_t^{1−τ/η} π_ref^{τ/η} e^{P(· ≻ π_t)/η} has no gradient, though no win rate is in the loss."""
    beats, reference = game()
    previous = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    eta, mixture = 0.4, 1 / 3
    step = previous ** (1 - mixture) * reference**mixture * (beats @ previous / eta).exp()
    objective = build("inpo_nash", eta=eta, mixture=mixture)
    sampled = (previous[:, None] * previous[None, :] * beats).flatten()
    for logits, stationary in ((step.log(), True), (previous.log(), False)):
        logits = logits.clone().requires_grad_()
        batch = all_pairs({}, policy=logits.softmax(0), reference=reference, previous=previous)
        (term,) = objective(batch)
        (slope,) = torch.autograd.grad((sampled * term.values).sum(), logits)
        assert (float(slope.abs().max()) < 1e-12) == stationary


def test_sppos_targets_are_the_step_of_multiplicative_weights_up_to_its_normaliser() -> None:
    beats, previous = game()
    eta = 2.0
    target = previous * (eta * (beats @ previous - 0.5)).exp()
    batch = all_pairs({"win_rate": beats @ previous}, policy=target, reference=previous)
    assert float(build("sppo", beta=1 / eta).loss(batch)) == pytest.approx(0, abs=1e-20)


# exploration and coverage


def test_xpo_adds_a_bare_log_probability_with_a_plus() -> None:
    """β times it, or a log-ratio, or a minus, would give .6881, .6931 or .7431."""
    policy = torch.tensor([[[-3.0], [-3.0], [-5.0]]], dtype=torch.float64)
    mask = torch.ones_like(policy, dtype=torch.bool)
    models = {"policy": TokenLogps(policy, mask), "reference": TokenLogps(policy, mask)}
    batch = PreferenceBatch(models, {}, SAMPLED)
    for beta in (0.1, 0.7):
        loss = float(build("xpo", beta=beta, alpha=0.01).loss(batch))
        assert loss == pytest.approx(math.log(2) - 0.05)


def test_xpo_selm_and_vpo_agree_in_gradient_when_alpha_is_scaled_by_beta() -> None:
    batch = of_roles([[0.3, -0.2, 1.5], [0.1, 0.4, -2.0]], SAMPLED)
    beta, alpha = 0.2, 0.05
    slopes = [
        slope_of(objective.loss(batch), batch)
        for objective in (
            build("xpo", beta=beta, alpha=alpha * beta),
            build("selm", beta=beta, alpha=alpha),
            build("vpo", beta=beta, alpha=alpha, sign="optimism", calibration="sample"),
        )
    ]
    torch.testing.assert_close(slopes[0], slopes[1])
    torch.testing.assert_close(slopes[0], slopes[2])
    torch.testing.assert_close(slopes[0][:, 2], torch.full((2, 2), alpha * beta / 2).double())


def test_selm_starts_at_log_two_and_doubling_beta_doubles_the_bonus() -> None:
    start = of_roles([[0.0, 0.0, 0.0]], SAMPLED)
    assert float(build("selm").loss(start).detach()) == pytest.approx(math.log(2))
    batch = of_roles([[0.0, 0.0, 1.0]], SAMPLED)
    once, twice = (build("selm", beta=beta, alpha=0.1)(batch)[1].total.detach() for beta in (0.1, 0.2))
    assert float(twice / once) == pytest.approx(2)


def test_a_pessimistic_vpo_raises_the_chosen_response_and_an_optimistic_one_lowers_it() -> None:
    batch = of_roles([[0.3, -0.2]], PAIR)
    plain = slope_of(build("dpo", beta=0.2).loss(batch), batch)
    pulls = {
        sign: slope_of(build("vpo", beta=0.2, alpha=0.5, sign=sign).loss(batch), batch) - plain
        for sign in ("optimism", "pessimism")
    }
    torch.testing.assert_close(pulls["pessimism"][0, 0], torch.full((2,), -0.1).double())
    torch.testing.assert_close(pulls["optimism"], -pulls["pessimism"])
    assert torch.equal(pulls["pessimism"][0, 1], torch.zeros(2).double())


def test_hypo_has_no_pull_at_the_reference_and_pulls_by_the_stopped_log_ratio_elsewhere() -> None:
    """Differentiating through the log-ratio as well would add log π to every slope."""
    batch = of_roles([[0.0, 0.0, 0.0], [0.3, 0.1, 1.2]], SAMPLED)
    (_, kl), lam = build("hypo", lam=0.05)(batch), 0.05
    assert float(kl.values[0].detach()) == 0
    slope = slope_of(build("hypo", lam=lam).loss(batch), batch)[:, 2]
    torch.testing.assert_close(slope, column([0.0, 0.0], [lam * 1.2 / 2] * 2))


def test_hypo_leaves_each_sample_out_of_its_own_baseline() -> None:
    roles = ("sample_1", "sample_2", "sample_3")
    batch = of_roles([[0.9, 0.0, -0.3], [2.0, 1.0, 0.0]], roles)
    advantage = drift(roles, "leave_one_out")(batch)
    torch.testing.assert_close(advantage, column([1.05, -0.3, -0.75], [1.5, 0.0, -1.5]))
    torch.testing.assert_close(advantage.sum(1), torch.zeros(2).double())
    slope = slope_of(online_kl(roles, "leave_one_out").loss(batch), batch)
    torch.testing.assert_close(slope[..., 0], advantage / 6)


def test_other_responses_are_not_part_of_hypos_baseline() -> None:
    roles = ("sample_1", "sample_2")
    batch = of_roles([[50.0, -70.0, 0.9, -0.3]], (*PAIR, *roles))
    advantage = drift(roles, "leave_one_out")(batch)[:, 2:]
    torch.testing.assert_close(advantage, column([1.2, -1.2]))


def test_the_gradient_of_hypos_term_is_that_of_the_kl_in_expectation() -> None:
    """Every response of a finite set once, each weighted by its probability."""
    logits = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64).requires_grad_()
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    logp = logits.log_softmax(0)
    (expected,) = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)
    mask = torch.ones(4, 1, 1, dtype=torch.bool)
    models = {
        "policy": TokenLogps(logp[:, None, None], mask),
        "reference": TokenLogps(reference[:, None, None], mask),
    }
    batch = PreferenceBatch(models, {}, ("sample",))
    (term,) = online_kl(("sample",), "none")(batch)
    (found,) = torch.autograd.grad((term.values * logp.detach().exp()).sum(), logits)
    torch.testing.assert_close(found, expected)


# rounds


def test_irpo_takes_the_mean_over_each_responses_own_tokens() -> None:
    """A batch mean over tokens, as TRL's, would weigh long responses more."""
    objective = build("irpo", beta=0.1, alpha=0.7)
    batch = batch_for(objective)
    plain = slope_of(build("dpo", beta=0.1).loss(batch), batch)
    extra = slope_of(objective.loss(batch), batch) - plain
    lengths = batch.lengths[:, 0, None]
    torch.testing.assert_close(extra[:, 0], torch.where(batch.mask[:, 0], -0.7 / (6 * lengths), 0))
    assert torch.equal(extra[:, 1], torch.zeros_like(extra[:, 1]))


def test_pessimistic_dpo_pushes_an_uncertain_chosen_response_less() -> None:
    pulls = []
    for uncertain in ([0.0, 0.0], [2.0, 0.0], [0.0, 2.0]):
        batch = pair_batch([0.1], [0.0], {"uncertainty": column(uncertain)})
        pulls.append(-float(slope_of(build("pessimistic_dpo", beta=1.0).loss(batch), batch)[0, 0, 0]))
    assert pulls[1] < pulls[0] < pulls[2]
    assert pulls[1] == pytest.approx(1 / (1 + math.exp(2.1)))


def test_optunes_weight_multiplies_the_gradient_of_dpo_and_is_not_normalised() -> None:
    batch = pair_batch([0.4], [0.1], {"score": column([2.0, 0.5])})
    plain = slope_of(build("dpo").loss(batch), batch)
    weighted = slope_of(build("optune_wdpo", beta2=0.5).loss(batch), batch)
    torch.testing.assert_close(weighted, plain / (1 + math.exp(-0.75)))
    linear = slope_of(build("optune_wdpo", beta2=0.5, shape="linear").loss(batch), batch)
    torch.testing.assert_close(linear, plain * 0.75)


@pytest.mark.parametrize(("beta2", "share"), [(1e9, 1.0), (0.0, 0.5)])
def test_optune_goes_from_half_of_dpo_to_dpo(beta2: float, share: float) -> None:
    batch = pair_batch([0.4, -0.3], [0.1, 0.2], {"score": column([2.0, 0.5], [1.0, 0.9])})
    loss = build("optune_wdpo", beta2=beta2).loss(batch)
    torch.testing.assert_close(loss, share * build("dpo").loss(batch))


def test_upo_adds_the_likelihood_that_the_print_subtracts() -> None:
    batch = pair_batch([0.4], [0.1], {"score": column([-2.0, 0.5]), "flip_rate": torch.tensor([0.3])})
    plain = slope_of(build("dpo").loss(batch), batch)
    pull = slope_of(build("upo", lam=0.5).loss(batch), batch) - plain
    assert float(pull[0, 0, 0]) == pytest.approx(-0.5 / 2.0)
    assert float(pull[0, 1, 0]) == 0


@pytest.mark.parametrize(("rate", "sign"), [(0.0, -1), (0.5, 0), (0.9, 1)])
def test_a_flip_rate_above_one_half_reverses_the_preference(rate: float, sign: int) -> None:
    batch = pair_batch(
        [0.0], [0.0], {"score": column([1.0, 0.5]), "flip_rate": torch.tensor([rate], dtype=torch.float64)}
    )
    slope = slope_of(build("upo", lam=0.0, labels="flip_rate").loss(batch), batch)[0, 0, 0]
    assert float(slope) == pytest.approx(0.1 * (rate - 0.5), abs=1e-12)
    assert float(slope.sign()) == sign


def test_the_hinges_of_rso_start_at_one_and_stop_at_their_margin() -> None:
    start, far = pair_batch([0.0], [0.0]), pair_batch([40.0], [0.0])
    assert float(build("rso", loss="hinge_norm").loss(start).detach()) == 1
    for loss in ("hinge_norm", "hinge"):
        assert not slope_of(build("rso", gamma=0.05, loss=loss).loss(far), far).any()


# groups


def group(policy_ratios: list[list[float]], scores: list[list[float]]) -> PreferenceBatch:
    batch = of_roles(policy_ratios, (), score=column(*scores))
    own = batch.models["policy"]
    return with_model(batch, behaviour=TokenLogps(own.logps.detach().clone(), own.mask))


def test_a_group_of_two_is_a_pair() -> None:
    lists = group([[0.4, -0.1], [0.3, 0.7]], [[1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(build("group_dpo").loss(lists), build("dpo").loss(replace(lists, roles=PAIR)))


def test_group_dpo_spreads_its_pull_over_each_side_and_skips_groups_of_one_kind() -> None:
    scores = [[1.0, 0.0, 1.0, 0.0, 0.0], [1.0] * 5]
    batch = group([[0.0] * 5] * 2, scores)
    loss = build("group_dpo", beta=0.2).loss(batch)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    slope = slope_of(loss, batch)[..., 0]
    torch.testing.assert_close(slope[0], column([-0.05, 1 / 30, -0.05, 1 / 30, 1 / 30])[0])
    assert torch.equal(slope[1], torch.zeros(5).double())


def test_group_advantages_are_centred_and_not_divided_without_a_spread() -> None:
    batch = group([[0.0] * 4] * 2, [[1.0, 0.0, 0.0, 0.0], [2.0] * 4])
    torch.testing.assert_close(group_advantage("none")(batch)[0], column([0.75, -0.25, -0.25, -0.25])[0])
    for spread, deviation in (("sample", 0.5), ("population", math.sqrt(3) / 4)):
        advantage = group_advantage(spread, epsilon=1e-12)(batch)
        torch.testing.assert_close(advantage[0], column([0.75, -0.25, -0.25, -0.25])[0] / deviation)
        assert torch.equal(advantage[1], torch.zeros(4).double())


def test_mo_grpo_on_the_first_step_has_no_value_and_pulls_by_advantage_over_length() -> None:
    batch = group([[0.0] * 4], [[3.0, 1.0, 0.5, 0.0]])
    objective = build("mo_grpo")
    loss = objective.loss(batch)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    expected = -group_advantage()(batch) / (4 * 2)
    torch.testing.assert_close(slope_of(loss, batch)[..., 0], expected)


def test_a_shift_or_a_scale_of_a_groups_scores_changes_nothing() -> None:
    objective = build("mo_grpo", epsilon=1e-12)
    batch = batch_for(objective)
    moved = replace(batch, columns={"score": 3 * batch.columns["score"] + 7})
    torch.testing.assert_close(objective.loss(batch), objective.loss(moved))


@pytest.mark.parametrize(
    ("score", "ratio", "pulled"), [(1.0, 2.0, 0), (1.0, 0.4, 1), (-1.0, 2.0, 1), (-1.0, 0.4, 0)]
)
def test_the_clip_stops_only_what_has_gone_far_enough(score: float, ratio: float, pulled: int) -> None:
    """The minimum is pessimistic: what has moved the wrong way keeps its gradient."""
    batch = of_roles([[0.0, 0.0]], (), advantage=column([score, 0.0]))
    own = batch.models["policy"]
    behind = own.logps.detach() - math.log(ratio)
    batch = with_model(batch, behaviour=TokenLogps(behind, own.mask))
    slope = slope_of(build("mo_grpo", kl=0.0, advantage="given").loss(batch), batch)
    assert bool(slope[0, 0].any()) == bool(pulled)
    if pulled:
        assert float(slope[0, 0, 0]) == pytest.approx(-score * ratio / 4)


def test_k3_is_never_negative_and_its_gradient_vanishes_at_the_reference() -> None:
    batch = of_roles([[0.0, 1.0, -1.0, 900.0, -900.0]], ())
    values = k3()(batch)
    assert (values >= 0).all()
    assert values.isfinite().all()
    assert not slope_of(values[0, 0].sum(), batch).any()


def test_far_from_the_behaviour_policy_nothing_is_infinite() -> None:
    single = copy.deepcopy(method("mo_grpo"))
    for ratio in (900.0, -900.0):
        batch = group([[ratio, 0.0]], [[1.0, 0.0]])
        policy = batch.models["policy"]
        logps = policy.logps.detach().float().requires_grad_()
        far = with_model(
            replace(batch, models={**batch.models, "policy": TokenLogps(logps, policy.mask)}), behaviour=-3.0
        )
        loss = single.loss(far)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logps)[0].isfinite().all()


# prompts


def test_mapl_pulls_one_response_up_under_one_prompt_and_down_under_the_other() -> None:
    objective = build("mapl_intra", beta=0.2)
    batch = of_roles([[0.0]], ("chosen",))
    other = of_roles([[0.0]], ("chosen",))
    batch = replace(batch, views={"contradicted": other})
    loss = objective.loss(batch)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    up, down = torch.autograd.grad(loss, [one.models["policy"].logps for one in (batch, other)])
    torch.testing.assert_close(up, torch.full_like(up, -0.1))
    torch.testing.assert_close(down, torch.full_like(down, 0.1))


def test_a_pair_without_preference_under_the_weaker_prompt_is_a_pair_of_dpo() -> None:
    batch = replace(of_roles([[0.5, -0.2]], PAIR), views={"weaker": of_roles([[0.3, 0.3]], PAIR)})
    torch.testing.assert_close(build("mapl_inter").loss(batch), build("dpo").loss(batch))
