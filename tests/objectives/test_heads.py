"""Values, masks and preference heads: what they equal, what they pull on, and what they must not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives import (
    Measured,
    Needs,
    PreferenceBatch,
    Quantity,
    Signal,
    TokenLogps,
    dry_run,
    method,
    primary,
)
from prefero.objectives.heads import Head, Projection, VectorHead
from prefero.objectives.needs import materialise
from prefero.objectives.presets.masks import ActivationMask, LayersMask, masked
from prefero.objectives.presets.preference_heads import (
    general_preference,
    preference_by,
    preference_scores,
    with_degrees,
)
from prefero.objectives.presets.valued import regression_on_rewards, soft_bellman, step_values
from prefero.objectives.signals import (
    PROMPT_STATE,
    STATE,
    TOKEN_STATE,
    TOKEN_STATES,
    forward_kl,
    mean_activations,
    reverse_kl,
)
from tests.objectives.batches import batch_for, build, random_batch, slope_of
from tests.objectives.test_needs import BOTH, PAIR, needs

VALUE, REWARD = Signal("value", axes="example response"), Signal("reward", axes="example response")
TOKEN_VALUE = Signal("token_value")
PARTS = frozenset({mean_activations(part) for part in ("mlp", "attention", "residual")})

NEEDS = {
    "svpo": needs(PAIR, "score", models={**BOTH, "policy": frozenset({STATE})}),
    "oreo": needs((), "score", models={**BOTH, "policy": frozenset({TOKEN_STATE, reverse_kl()})}),
    "dro_v": needs((), "score", models={**BOTH, "policy": frozenset({PROMPT_STATE})}),
    "sparsepo": needs(models={"policy": frozenset({forward_kl()}), "reference": frozenset({TOKEN_STATES})}),
    "sparsepo_mapo": needs(models={"policy": frozenset({forward_kl()}), "reference": PARTS}),
    "dph": needs(models={**BOTH, "policy": frozenset({STATE})}),
    "gpm": needs(models={"policy": frozenset({STATE, PROMPT_STATE})}),
    "gpo": needs(PAIR, "advantage"),
    "spo_self_supervised": needs(
        (*PAIR, "chosen_degraded", "rejected_degraded"),
        "degree",
        models={**BOTH, "policy": frozenset({STATE})},
    ),
}


@pytest.mark.parametrize("key", NEEDS)
def test_what_a_method_with_a_head_needs(key: str) -> None:
    assert dry_run(build(key)) == NEEDS[key]


# Heads


def test_a_head_is_as_wide_as_the_states_of_its_own_model() -> None:
    widths = {"policy": 7, "teacher": 11}
    reward = Head(Projection(), Measured(STATE)) + Head(Projection(), Measured(STATE, "teacher"))
    made = materialise(preference_by(reward, 0.1, "contrastive"), lambda m: {"hidden": widths[m], "layer": 2})
    assert [w.shape[-1] for w in made.parameters() if w.dim() == 2] == [7, 11]


def test_what_is_drawn_depends_on_the_seed_alone_and_no_generator_moves() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = materialise(method("dph", pool="swiglu"), seed=5).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.randn(3)
    again, other = (materialise(method("dph", pool="swiglu"), seed=s).state_dict() for s in (5, 6))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_materialising_moves_no_running_statistic_and_makes_nothing_twice() -> None:
    objective = method("beta_dpo").train() + method("dph")
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    weights = {name: id(weight) for name, weight in materialise(objective).named_parameters()}
    assert objective.parts[0].training
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in before.items())
    assert weights == {name: id(weight) for name, weight in materialise(objective).named_parameters()}


def test_the_dry_run_leaves_a_head_unmade() -> None:
    objective = method("dph")
    dry_run(objective)
    assert not list(objective.parameters())


def test_nan_at_absent_responses_reaches_no_weight_of_a_head() -> None:
    """A mask on the loss alone would leave 0 · NaN in the head's gradient."""
    objective = build("dro_v", detach_value=False)
    batch = batch_for(objective)
    there = batch.mask.any(-1)
    assert not there.all()
    states = batch.models["policy"].signals[PROMPT_STATE]
    with torch.no_grad():
        states[~there] = torch.nan
    objective.loss(batch).backward()
    assert all(weight.grad.isfinite().all() for weight in objective.parameters())
    assert states.grad[there].isfinite().all()


@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
def test_a_head_computes_in_the_precision_of_its_weights_under_autocast_too(weights: torch.dtype) -> None:
    head = Head(Projection(), Measured(STATE))
    states = torch.randn(2, 2, 7, dtype=torch.bfloat16)
    zeros = torch.zeros(2, 2, 1)
    policy = TokenLogps(zeros, torch.ones_like(zeros, dtype=torch.bool), {STATE: states})
    head(PreferenceBatch({"policy": policy}))
    head = head.to(weights)
    expected = states.to(weights) @ head.module.weight[0] + head.module.bias
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(head(PreferenceBatch({"policy": policy})), expected.float())


@pytest.mark.parametrize("key", ["svpo", "dph", "oreo", "dro_v"])
def test_a_detached_state_gets_no_gradient_and_the_head_still_does(key: str) -> None:
    argument = "detach_head" if key == "dph" else "detach_value"
    for detached in (True, False):
        objective = build(key, **{argument: detached})
        batch = batch_for(objective)
        (signal,) = (s for s in batch.models["policy"].signals if "state" in s.name)
        states = batch.models["policy"].signals[signal]
        slope, *own = torch.autograd.grad(
            objective.loss(batch), [states, *objective.parameters()], allow_unused=True
        )
        assert (slope is None) == detached
        assert all(one is not None and one.abs().sum() > 0 for one in own)


# Batches whose heads' outputs are given


def singles(logps: list[float], reference: list[float], **columns: Tensor) -> PreferenceBatch:
    """One response of so many tokens."""
    mask = torch.ones(1, 1, len(logps), dtype=torch.bool)
    policy, other = (torch.tensor([[row]], dtype=torch.float64) for row in (logps, reference))
    return PreferenceBatch(
        {"policy": TokenLogps(policy.requires_grad_(), mask), "reference": TokenLogps(other, mask)},
        columns,
        (),
    )


def with_signal(batch: PreferenceBatch, signal: Signal, values: Tensor) -> PreferenceBatch:
    policy = batch.models["policy"]
    signals = {**policy.signals, signal: values.double().requires_grad_()}
    models = {**batch.models, "policy": TokenLogps(policy.logps, policy.mask, signals)}
    return PreferenceBatch(models, batch.columns, batch.roles)


def slope_at(objective, batch: PreferenceBatch, signal: Signal) -> Tensor:
    return torch.autograd.grad(objective.loss(batch), batch.models["policy"].signals[signal])[0]


def pairs_with(
    signal: Signal, chosen: list[float], rejected: list[float], **columns: Tensor
) -> PreferenceBatch:
    found = Needs(PAIR, frozenset(), BOTH)
    batch = random_batch(found, examples=len(chosen))
    batch = PreferenceBatch(batch.models, columns, batch.roles)
    return with_signal(batch, signal, torch.tensor([chosen, rejected]).T)


# SVPO


def test_svpos_margin_pulls_by_one_or_not_at_all() -> None:
    objective = step_values(Measured(VALUE), 0.1, mse_weight=0.0, margin_weight=0.5, margin=0.3)
    score = torch.zeros(2, 2).double()
    batch = pairs_with(VALUE, [0.5, 0.1], [0.1, 0.0], score=score)
    slope = slope_at(objective, batch, VALUE)
    assert slope[0].tolist() == [0.0, 0.0], "V_w − V_l = 0.4 is enough"
    assert slope[1].tolist() == pytest.approx([-0.25, 0.25]), "half of the batch's mean, times c_m"


def test_svpo_without_a_margin_only_asks_for_the_right_order() -> None:
    objective = step_values(Measured(VALUE), 0.1, mse_weight=0.0, margin_weight=1.0, margin=0.0)
    batch = pairs_with(VALUE, [0.5, 0.0], [0.1, 0.4], score=torch.zeros(2, 2).double())
    assert slope_at(objective, batch, VALUE).tolist() == [[0.0, 0.0], [-0.5, 0.5]]


def test_svpos_regression_pulls_the_value_to_the_searchs_and_averages_the_two_steps() -> None:
    objective = step_values(Measured(VALUE), 0.1, mse_weight=1.0, margin_weight=0.0, margin=0.3)
    batch = pairs_with(VALUE, [0.5], [0.1], score=torch.tensor([[1.0, -1.0]]).double())
    assert slope_at(objective, batch, VALUE)[0].tolist() == pytest.approx([-0.5, 1.1])


def test_svpos_value_lies_between_minus_one_and_one() -> None:
    objective = build("svpo")
    batch = batch_for(objective)
    with torch.no_grad():
        batch.models["policy"].signals[STATE].mul_(1e3)
    (head,) = {module for module in objective.modules() if isinstance(module, Head)}
    values = head(batch).detach()
    assert 0.9 < float(values.abs().max()) <= 1


# OREO


def test_oreos_two_losses_are_equal_and_pull_on_different_things() -> None:
    objective = soft_bellman(Measured(TOKEN_VALUE), 0.3, 0.0, "token")
    batch = batch_for(objective, seed=1)
    of_value, of_policy = objective(batch)
    torch.testing.assert_close(of_value.total, of_policy.total)
    value, logps = batch.models["policy"].signals[TOKEN_VALUE], batch.models["policy"].logps
    for term, gets, not_ in ((of_value, value, logps), (of_policy, logps, value)):
        slope, nothing = torch.autograd.grad(term.total, [gets, not_], retain_graph=True, allow_unused=True)
        assert slope.abs().sum() > 0
        assert nothing is None or not nothing.any()


def test_oreo_pulls_on_a_token_by_its_own_residual_and_not_by_those_before_it() -> None:
    """∂L_π/∂log π(y_t) = (2β/T) · residual_t: later log-ratios are constants in it."""
    beta, reward, values = 0.3, 1.0, torch.tensor([[[0.2, 0.5, -0.1]]])
    batch = singles([-1.0, -2.0, -0.5], [-1.5, -1.0, -0.7], score=torch.tensor([[reward]]).double())
    batch = with_signal(batch, TOKEN_VALUE, values)
    objective = soft_bellman(Measured(TOKEN_VALUE), beta, 0.0, "token")
    delta = [0.5, -1.0, 0.2]
    residual = [float(values[0, 0, t]) - reward + beta * sum(delta[t:]) for t in range(3)]
    expected = [2 * beta / 3 * one for one in residual]
    assert slope_of(objective.loss(batch), batch)[0, 0].tolist() == pytest.approx(expected, abs=1e-7)


def test_a_step_of_oreo_shares_one_residual_and_the_mean_is_over_steps() -> None:
    batch = singles([-1.0, -2.0, -0.5], [-1.5, -1.0, -0.7], score=torch.zeros(1, 1).double())
    batch.columns["step"] = torch.tensor([[[1, 1, 2]]])
    batch = with_signal(batch, TOKEN_VALUE, torch.tensor([[[0.2, 9.0, -0.1]]]))
    objective = soft_bellman(Measured(TOKEN_VALUE), 0.3, 0.0, "step")
    first, second = 0.2 + 0.3 * (0.5 - 1.0 + 0.2), -0.1 + 0.3 * 0.2
    assert float(objective(batch)[0].total.detach()) == pytest.approx((first**2 + second**2) / 2, abs=1e-7)
    slope = slope_of(objective.loss(batch), batch)[0, 0].tolist()
    assert slope == pytest.approx([0.3 * first, 0.3 * first, 0.3 * second], abs=1e-7)


def test_a_response_without_steps_is_one_step_of_oreo() -> None:
    batch = singles([-1.0, -2.0, -0.5], [-1.5, -1.0, -0.7], score=torch.ones(1, 1).double())
    batch.columns["step"] = torch.zeros(1, 1, 3, dtype=torch.int64)
    batch = with_signal(batch, TOKEN_VALUE, torch.tensor([[[0.2, 9.0, -0.1]]]))
    losses = [
        soft_bellman(Measured(TOKEN_VALUE), 0.3, 0.0, level).loss(batch) for level in ("step", "response")
    ]
    assert torch.equal(losses[0], losses[1])


def test_oreo_of_one_token_is_twice_the_residual_of_dro() -> None:
    batch = singles([-1.0], [-1.5], score=torch.ones(1, 1).double())
    values = torch.tensor([[0.4]])
    one = with_signal(batch, TOKEN_VALUE, values[..., None])
    other = with_signal(batch, VALUE, values)
    oreo = soft_bellman(Measured(TOKEN_VALUE), 0.3, 0.0, "token")(one)[0].total
    dro = regression_on_rewards(Measured(VALUE), 0.3, False).loss(other)
    torch.testing.assert_close(oreo, 2 * dro)


def test_oreos_residuals_vanish_at_the_soft_optimum_of_a_tree() -> None:
    """V*(s) = β log Σ_a π_ref(a|s) exp(V*(s a)/β), π* = π_ref exp((V*(s a) − V*(s))/β), on all four paths."""
    beta, start, after = 0.5, [0.3, 0.7], {0: [0.6, 0.4], 1: [0.1, 0.9]}
    reward = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 1.0}
    value = {
        a: beta * math.log(sum(after[a][b] * math.exp(reward[a, b] / beta) for b in (0, 1))) for a in (0, 1)
    }
    root = beta * math.log(sum(start[a] * math.exp(value[a] / beta) for a in (0, 1)))
    for a, b in itertools.product((0, 1), repeat=2):
        reference = [math.log(start[a]), math.log(after[a][b])]
        policy = [reference[0] + (value[a] - root) / beta, reference[1] + (reward[a, b] - value[a]) / beta]
        batch = singles(policy, reference, score=torch.tensor([[reward[a, b]]]).double())
        batch = with_signal(batch, TOKEN_VALUE, torch.tensor([[[root, value[a]]]], dtype=torch.float64))
        loss = soft_bellman(Measured(TOKEN_VALUE), beta, 0.0, "token").loss(batch)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-20)


# DRO


def test_dros_gradients_are_its_residual_by_hand() -> None:
    tau, value, reward = 0.7, 0.4, 1.1
    batch = singles([-1.0, -2.0], [-1.5, -1.0], score=torch.tensor([[reward]]).double())
    batch = with_signal(batch, VALUE, torch.tensor([[value]], dtype=torch.float64))
    residual = reward - value - tau * (0.5 - 1.0)
    for divide, scale in ((False, tau), (True, 1.0)):
        objective = regression_on_rewards(Measured(VALUE), tau, divide)
        assert float(objective.loss(batch).detach()) == pytest.approx(residual**2 / 2)
        assert slope_of(objective.loss(batch), batch)[0, 0].tolist() == pytest.approx([-scale * residual] * 2)
        assert slope_at(objective, batch, VALUE).item() == pytest.approx(-residual), (
            "dividing leaves it alone"
        )


def test_dro_is_zero_at_the_closed_form_optimum_and_nowhere_near() -> None:
    tau = 0.5
    reference, rewards = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([1.0, 0.0, -1.0]).double()
    value = tau * (reference * (rewards / tau).exp()).sum().log()
    policy = reference.log() + (rewards - value) / tau
    mask = torch.ones(3, 1, 1, dtype=torch.bool)
    models = {
        "policy": TokenLogps(policy[:, None, None].requires_grad_(), mask),
        "reference": TokenLogps(reference.log()[:, None, None], mask),
    }
    batch = PreferenceBatch(models, {"score": rewards[:, None]}, ())
    losses = []
    for offset in (0.0, 0.1):
        at = with_signal(batch, VALUE, (value + offset).expand(3, 1).clone())
        losses.append(float(regression_on_rewards(Measured(VALUE), tau, True).loss(at).detach()))
    assert losses == pytest.approx([0.0, 0.005], abs=1e-15)


def test_without_its_value_dro_on_two_responses_is_a_squared_margin() -> None:
    tau = 0.7
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    ratio, score = torch.tensor([[0.3, -0.8]]).double(), torch.tensor([[1.2, 0.1]]).double()
    models = {
        "policy": TokenLogps((ratio - 1)[..., None], mask),
        "reference": TokenLogps(-torch.ones(1, 2, 1).double(), mask),
    }
    batch = PreferenceBatch(models, {"score": score}, ())
    best = (score - tau * ratio).mean()
    batch = with_signal(batch, VALUE, best.expand(1, 2).clone())
    margin = float((score[0, 0] - score[0, 1]) - tau * (ratio[0, 0] - ratio[0, 1]))
    loss = regression_on_rewards(Measured(VALUE), tau, True).loss(batch)
    assert float(loss.detach()) == pytest.approx(margin**2 / 8)


# SparsePO


class Fixed(Quantity):
    """The same mask for every token."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def forward(self, batch: PreferenceBatch) -> Tensor:
        return self.value * batch.mask


@pytest.mark.parametrize(("masks", "other"), [((1.0, 1.0), "tdpo1"), ((1.0, 0.0), "dpo")])
def test_full_masks_are_tdpo1_and_one_without_divergence_is_dpo(masks, other: str) -> None:
    objective = masked(Fixed(masks[0]), Fixed(masks[1]), beta=0.3)
    batch = batch_for(objective)
    expected = build(other, beta=0.3).loss(batch)
    torch.testing.assert_close(objective.loss(batch), expected)
    torch.testing.assert_close(slope_of(objective.loss(batch), batch), slope_of(expected, batch))


def test_the_divergences_mask_is_pushed_down_on_the_rejected_and_up_on_the_chosen_response() -> None:
    mask = Signal("mask")
    objective = masked(Fixed(1.0), Measured(mask), beta=0.3)
    batch = batch_for(objective)
    slope = slope_at(objective, batch, mask)
    there = batch.mask
    assert (slope[:, 0][there[:, 0]] < 0).all() and (slope[:, 1][there[:, 1]] > 0).all()


def test_a_common_mask_has_both_penalties_halved() -> None:
    one, batch = Fixed(0.5), batch_for(masked(Fixed(1.0), Fixed(1.0), 0.3))

    def penalties(first: Quantity, second: Quantity) -> Tensor:
        return masked(first, second, 0.3, 0.2, 0.4).loss(batch) - masked(first, second, 0.3).loss(batch)

    torch.testing.assert_close(2 * penalties(one, one), penalties(one, Fixed(0.5)))
    size = 0.5 * batch.lengths[:, :2].sum(1).mean()
    torch.testing.assert_close(penalties(one, one), (0.1 + 0.2) * size)


@pytest.mark.parametrize("layers", ["all", "last"])
@pytest.mark.parametrize("seed", range(5))
def test_no_mask_is_dead_at_the_start(layers: str, seed: int) -> None:
    objective = materialise(method("sparsepo", layers=layers), seed=seed).double()
    batch = batch_for(objective)
    mask = primary(objective).reward
    head = next(module for module in mask.modules() if isinstance(module, Head))
    values = head(batch)[batch.mask]
    assert (values > 0).double().mean() > 0.5
    slopes = torch.autograd.grad(objective.loss(batch), list(objective.parameters()), allow_unused=True)
    assert all(slope is not None and slope.abs().sum() > 0 for slope in slopes)


def test_masks_read_the_reference_and_leave_it_alone() -> None:
    objective = build("sparsepo", masks="independent")
    batch = batch_for(objective)
    states = batch.models["reference"].signals[TOKEN_STATES]
    assert torch.autograd.grad(objective.loss(batch), states, allow_unused=True) == (None,)
    assert len([module for module in objective.modules() if isinstance(module, LayersMask)]) == 2


def test_a_mask_of_one_hook_goes_from_zero_to_one_and_standardising_does_not_matter() -> None:
    signal = Signal("mean_activations", options=(("part", "mlp"),))
    values = torch.tensor([[[[3.0], [-1.0], [0.5]]]]).double()
    mask = torch.ones(1, 1, 3, dtype=torch.bool)

    def found(activations: Tensor) -> Tensor:
        policy = TokenLogps(torch.zeros(1, 1, 3).double(), mask, {signal: activations})
        return ActivationMask(Measured(signal))(PreferenceBatch({"policy": policy}, roles=()))[0, 0]

    assert found(values).tolist() == pytest.approx([1.0, 0.0, 0.375])
    torch.testing.assert_close(found(values), found((values - values.mean()) / values.std()))
    assert found(torch.ones_like(values)).tolist() == [0.0, 0.0, 0.0], "nothing stands out"


# DPH


def test_a_contrastive_head_without_smoothing_is_bradley_and_terry() -> None:
    batch = pairs_with(REWARD, [0.3], [-0.4])
    loss = preference_by(Measured(REWARD), 0.0, "contrastive").loss(batch)
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-0.7)))


@pytest.mark.parametrize("loss", ["separable", "contrastive"])
def test_a_heads_optimum_is_finite_and_known(loss: str) -> None:
    best = math.log(0.9 / 0.1)
    objective = preference_by(Measured(REWARD), 0.1, loss)
    sides = (best, -best) if loss == "separable" else (best + 5, 5.0)
    assert slope_at(objective, pairs_with(REWARD, [sides[0]], [sides[1]]), REWARD).abs().max() < 1e-6
    assert slope_at(objective, pairs_with(REWARD, [sides[0] + 1], [sides[1]]), REWARD)[0, 0] > 0


def test_a_shift_of_both_rewards_matters_to_the_separable_loss_alone() -> None:
    here, there = pairs_with(REWARD, [0.3], [-0.4]), pairs_with(REWARD, [2.3], [1.6])
    for loss, same in (("contrastive", True), ("separable", False)):
        objective = preference_by(Measured(REWARD), 0.1, loss)
        assert math.isclose(float(objective.loss(here)), float(objective.loss(there)), rel_tol=1e-6) == same


def test_the_separable_loss_adds_two_cross_entropies_and_does_not_average_them() -> None:
    objective = preference_by(Measured(REWARD), 0.1, "separable")
    slope = slope_at(objective, pairs_with(REWARD, [0.3], [-0.4]), REWARD)[0]
    sigmoid = [1 / (1 + math.exp(-r)) for r in (0.3, -0.4)]
    assert slope.tolist() == pytest.approx([sigmoid[0] - 0.9, sigmoid[1] - 0.1], rel=1e-6)


def test_the_reward_that_a_log_shows_of_dph_is_the_heads() -> None:
    objective = build("dph")
    assert isinstance(primary(objective).reward, Head)


# GPM and GPO


def test_preference_scores_are_skew_and_bounded_by_the_largest_scale() -> None:
    vectors = nn.functional.normalize(torch.randn(6, 8).double(), dim=-1)
    scales = torch.rand(4).double()
    scores = preference_scores(vectors, scales)
    torch.testing.assert_close(scores, -scores.T)
    assert not scores.diagonal().any()
    assert float(scores.abs().max()) <= float(scales.max()) + 1e-12


def test_with_a_constant_beside_it_a_preference_score_is_bradley_and_terrys() -> None:
    rewards, constant = torch.randn(5).double(), 1.7
    vectors = torch.stack([rewards, torch.full_like(rewards, constant)], -1)
    scores = preference_scores(vectors, torch.ones(1).double())
    torch.testing.assert_close(scores, constant * (rewards[:, None] - rewards[None]))


def test_a_cycle_has_a_preference_score_and_no_reward() -> None:
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], -1)
    scores = preference_scores(vectors, torch.ones(1).double())
    assert scores[0, 1] > 0 and scores[1, 2] > 0 and scores[2, 0] > 0
    assert scores.mean(-1).abs().max() < 1e-12


def test_the_margin_of_a_pair_is_its_score_with_a_third_response_there_or_not() -> None:
    embedding, scales = (
        Signal("embedding", axes="example response"),
        Signal("scales", axes="example response"),
    )
    objective = general_preference(Measured(embedding), Measured(scales), 0.1)
    vectors, lambdas = torch.randn(4, 3, 4).double(), torch.rand(4, 1, 2).double().expand(4, 3, 2).clone()
    expected = preference_scores(vectors, lambdas[:, 0])
    for roles in (("chosen", "rejected", "gold"), ("gold", "rejected", "chosen")):
        batch = random_batch(Needs(roles, models={"policy": frozenset()}), examples=4)
        batch = with_signal(with_signal(batch, embedding, vectors), scales, lambdas)
        margins = objective.comparisons(batch).margins[:, 0]
        chosen, rejected = roles.index("chosen"), roles.index("rejected")
        torch.testing.assert_close(margins, expected[:, chosen, rejected] / 0.1)


def test_gpms_scales_are_positive_with_mean_one_and_follow_the_prompt() -> None:
    objective = build("gpm", k=4)
    heads = [module for module in objective.modules() if isinstance(module, VectorHead)]
    (head,) = [one for one in heads if one.state.signal == PROMPT_STATE]
    batch = batch_for(objective)
    found = head(batch)
    assert (found > 0).all()
    torch.testing.assert_close(found.mean(-1), torch.ones_like(found[..., 0]))
    assert float(found.std(0).max().detach()) > 0


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": 2.5}])
def test_a_number_of_blocks_is_a_positive_whole_number(arguments) -> None:
    with pytest.raises(PreferoError, match="k of gpm"):
        method("gpm", **arguments)


def test_gpo_by_hand() -> None:
    """s̄ = (0.2, −0.1), β = 0.001, π = π_t: ½ (200² + 100²) = 25000; subtracting ½ would be SPPO's."""
    batch = pairs_with(VALUE, [0.0], [0.0], advantage=torch.tensor([[0.2, -0.1]]).double())
    models = {**batch.models, "reference": batch.models["policy"]}
    loss = build("gpo", beta=0.001).loss(PreferenceBatch(models, batch.columns, batch.roles))
    assert float(loss.detach()) == pytest.approx(25000)


# Self-supervised degrees


def test_without_weight_the_degrees_change_nothing() -> None:
    objective = build("spo_self_supervised", gamma=0.0)
    batch = batch_for(objective)
    assert torch.equal(objective.loss(batch), build("dpo").loss(batch))


def degree_loss(logits: Tensor, degree: int = 1) -> tuple[float, Tensor]:
    """The two terms for variants of one degree whose head gives these logits."""
    found, signal = NEEDS["spo_self_supervised"], Signal("logits", axes="example response")
    batch = random_batch(found, examples=2)
    batch.columns["degree"][:] = degree
    batch = with_signal(batch, signal, logits.expand(2, 4, -1).clone())
    logit = Measured(signal)
    objective = with_degrees(method("dpo"), (logit, logit), 1.0)
    loss = objective.loss(batch) - method("dpo").loss(batch)
    return float(loss.detach()), torch.autograd.grad(loss, batch.models["policy"].signals[signal])[0]


def test_a_head_that_knows_nothing_costs_log_c_and_one_that_knows_costs_nothing() -> None:
    loss, _ = degree_loss(torch.zeros(5))
    assert loss == pytest.approx(math.log(5))
    loss, slope = degree_loss(torch.tensor([0.0, 60.0, 0.0]))
    assert loss < 1e-20 and slope.abs().max() < 1e-20


def test_only_the_variants_are_asked_for_their_degree() -> None:
    _, slope = degree_loss(torch.randn(3))
    assert not slope[:, :2].any()
    assert slope[:, 2:].abs().sum() > 0


def test_the_variants_take_no_part_in_the_preference() -> None:
    objective = build("spo_self_supervised")
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    assert not slope[:, 2:].any() and slope[:, :2].abs().sum() > 0
    states = batch.models["policy"].signals[STATE]
    (of_states,) = torch.autograd.grad(objective.loss(batch), states)
    assert not of_states[:, :2].any() and of_states[:, 2:].abs().sum() > 0


def test_a_degree_beyond_the_heads_is_refused() -> None:
    objective = build("spo_self_supervised", degrees=2)
    batch = batch_for(objective)
    batch.columns["degree"][0, 0] = 2
    with pytest.raises(PreferoError, match="degrees=2, numbered from 0"):
        objective.loss(batch)


@pytest.mark.parametrize(("heads", "count"), [("shared", 1), ("separate", 2)])
def test_one_head_serves_both_sides_or_each_has_its_own(heads: str, count: int) -> None:
    assert len(list(build("spo_self_supervised", heads=heads).parameters())) == 2 * count
