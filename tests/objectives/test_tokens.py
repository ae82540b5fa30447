"""Token by token: which tokens count, how much, and what is not differentiated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from prefero.objectives import Column, Needs, PreferenceBatch, TokenLogps, dry_run, primary
from prefero.objectives.presets.policy_gradients import GeneralisedAdvantage, token_reward
from prefero.objectives.presets.tokens import surprise_weight
from prefero.objectives.quantities import Constant, log_ratio
from prefero.objectives.signals import TOKEN_STATE, nested_risk
from tests.objectives.batches import batch_for, build, slope_of

PAIR = ("chosen", "rejected")
REFERENCE: dict = {"policy": frozenset(), "reference": frozenset()}
RELEASED = nested_risk("released_cvar", confidence=0.95, split=True)

NEEDS = {
    "ra_dpo1": Needs(PAIR, frozenset(), {"policy": frozenset({RELEASED}), "reference": frozenset()}),
    "ra_dpo2": Needs(PAIR, frozenset(), {"policy": frozenset({RELEASED}), "reference": frozenset()}),
    "tgdpo": Needs(PAIR, frozenset(), {**REFERENCE, "guide": frozenset()}),
    "sampo": Needs(PAIR, frozenset({"noise"}), REFERENCE),
    "sampo_averaged": Needs(PAIR, frozenset(), REFERENCE),
    "dpo_bmc": Needs(PAIR, frozenset({"differs"}), REFERENCE),
    "rto": Needs(
        (),
        frozenset({"score"}),
        {
            "policy": frozenset({TOKEN_STATE}),
            "reference": frozenset(),
            "behaviour": frozenset(),
            "guide": frozenset(),
        },
    ),
}


@pytest.mark.parametrize("key", sorted(NEEDS))
def test_what_a_method_needs(key: str) -> None:
    assert dry_run(build(key)) == NEEDS[key]


def ragged(*rows: list[float]) -> tuple[Tensor, Tensor]:
    """One example's responses as numbers and mask."""
    longest = max(map(len, rows))
    values = torch.tensor([[row + [0.0] * (longest - len(row)) for row in rows]], dtype=torch.float64)
    mask = torch.tensor([[[True] * len(row) + [False] * (longest - len(row)) for row in rows]])
    return values, mask


def batch_of(
    policy: list[list[float]], *, roles=PAIR, columns=None, **others: list[list[float]]
) -> PreferenceBatch:
    """One example; models that are not given are 0 everywhere."""
    logps, mask = ragged(*policy)
    models = {"policy": TokenLogps(logps.requires_grad_(), mask)}
    for name in ("reference", "guide", "behaviour"):
        rows = others.get(name)
        models[name] = TokenLogps(
            torch.zeros_like(logps).detach() if rows is None else ragged(*rows)[0], mask
        )
    return PreferenceBatch(models, columns or {}, roles)


def margin(objective, batch: PreferenceBatch) -> Tensor:
    return primary(objective).comparisons(batch).margins.detach()


class TestRiskAware:
    def test_only_the_second_variant_leaves_the_chosen_risk_alone(self) -> None:
        first, second = build("ra_dpo1"), build("ra_dpo2", alpha=1.0)
        batch = batch_for(first)
        risk = batch.models["policy"].signals[RELEASED]
        torch.testing.assert_close(first.loss(batch), second.loss(batch))
        (free,), (held,) = (torch.autograd.grad(one.loss(batch), risk) for one in (first, second))
        assert (free[:, 0][batch.mask[:, 0]] < 0).all()
        assert not held[:, 0].any(), "a risk that is not detached is pushed up"
        assert (held[:, 1][batch.mask[:, 1]] > 0).all()

    def test_a_policy_without_risk_starts_at_log_two(self) -> None:
        batch = batch_of([[-1.0, -2.0], [-3.0]], reference=[[-1.0, -2.0], [-3.0]])
        policy = batch.models["policy"]
        risk = {RELEASED: torch.zeros_like(policy.logps)}
        batch = replace(batch, models={**batch.models, "policy": replace(policy, signals=risk)})
        assert float(build("ra_dpo1").loss(batch).detach()) == pytest.approx(math.log(2))

    @pytest.mark.parametrize(
        ("arguments", "signal"),
        [
            ({"risk": "cvar", "tail": 0.2}, nested_risk("cvar", tail=0.2)),
            ({"risk": "entropic", "mu": 3.0}, nested_risk("entropic", mu=3.0)),
            ({"split": False, "confidence": 0.5}, nested_risk("released_cvar", confidence=0.5, split=False)),
        ],
    )
    def test_the_measure_is_part_of_what_is_asked_for(self, arguments, signal) -> None:
        for key in ("ra_dpo1", "ra_dpo2"):
            assert dry_run(build(key, **arguments)).models["policy"] == {signal}


class TestGuided:
    def test_a_guide_equal_to_the_reference_makes_it_dpo(self) -> None:
        rows = [[-1.0, -2.0, -0.5], [-3.0, -0.1]]
        batch = batch_of(
            rows, reference=[[-1.5, -1.0, -0.2], [-2.0, -0.4]], guide=[[-1.5, -1.0, -0.2], [-2.0, -0.4]]
        )
        torch.testing.assert_close(build("tgdpo", alpha=2.0).loss(batch), build("dpo").loss(batch))

    def test_a_token_the_guide_likes_weighs_more_in_the_chosen_and_less_in_the_rejected_response(
        self,
    ) -> None:
        objective = build("tgdpo", beta=0.1, alpha=0.5)
        batch = batch_of([[0.0, 0.0], [0.0, 0.0]], guide=[[0.4, 0.0], [0.4, 0.0]])
        margins = primary(objective).comparisons(batch).margins
        (pull,) = torch.autograd.grad(margins.sum(), batch.models["policy"].logps)
        torch.testing.assert_close(pull / 0.1, torch.tensor([[[1.02, 1.0], [-0.98, -1.0]]]).double())

    def test_a_constant_credit_scales_the_two_sides(self) -> None:
        batch = batch_of([[0.3, 0.2], [0.7, -0.4, 0.1]], guide=[[2.0, 2.0], [2.0] * 3])
        found = margin(build("tgdpo", beta=0.2, alpha=0.5), batch)
        credit = 0.5 * 0.2 * 2.0
        assert float(found) == pytest.approx(0.2 * ((1 + credit) * 0.5 - (1 - credit) * 0.4))

    def test_no_gradient_reaches_the_guide(self) -> None:
        batch = batch_of([[0.3], [0.1]])
        guide = torch.full_like(batch.models["policy"].logps, 1.0).detach().requires_grad_()
        models = {**batch.models, "guide": TokenLogps(guide, batch.mask)}
        loss = build("tgdpo").loss(replace(batch, models=models))
        assert torch.autograd.grad(loss, guide, allow_unused=True) == (None,)

    def test_weights_have_no_bounds_unless_they_are_given(self) -> None:
        batch = batch_of([[0.3], [0.1]], guide=[[-300.0], [0.0]])
        free, bounded = build("tgdpo"), build("tgdpo", lowest_weight=0.0)
        assert float(slope_of(free.loss(batch), batch)[0, 0, 0]) > 0, "pushed away from the chosen token"
        assert float(slope_of(bounded.loss(batch), batch)[0, 0, 0]) == 0


class TestDownSampled:
    def draw(self, batch: PreferenceBatch, seed: int) -> PreferenceBatch:
        noise = torch.rand(
            batch.mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        return replace(batch, columns={"noise": noise})

    def test_as_many_tokens_of_either_side_count(self) -> None:
        batch = batch_of([[-1.0] * 7, [-2.0] * 3])
        for seed in range(5):
            drawn = self.draw(batch, seed)
            slope = slope_of(build("sampo").loss(drawn), drawn)
            assert (slope[0, 0] < 0).sum() == (slope[0, 1] > 0).sum() == 3

    def test_equal_lengths_make_it_dpo(self) -> None:
        batch = batch_of([[-1.0, -0.5], [-2.0, -0.1]], reference=[[-0.7, -0.9], [-1.0, -0.3]])
        for seed in range(3):
            drawn = self.draw(batch, seed)
            torch.testing.assert_close(build("sampo").loss(drawn), build("dpo").loss(drawn))

    def test_policy_and_reference_count_the_same_tokens(self) -> None:
        """With a draw for each, an untrained policy would not start at log 2."""
        rows = [[-1.0, -5.0, -0.2, -9.0], [-3.0, -0.1]]
        for seed in range(5):
            drawn = self.draw(batch_of(rows, reference=rows), seed)
            assert float(build("sampo").loss(drawn).detach()) == pytest.approx(math.log(2), rel=1e-12)

    def test_a_draw_for_each_model_starts_elsewhere_and_agrees_on_average(self) -> None:
        rows = [[-1.0, -5.0, -0.2, -9.0], [-3.0, -0.1]]
        batch = batch_of(rows, reference=rows)
        objective = build("sampo", beta=1.0, draws="separate")
        margins = torch.stack([margin(objective, self.draw(batch, seed)) for seed in range(2000)])
        assert float(margins.abs().max()) > 5
        # the places of the second draw say nothing of the first: as often above as below
        assert float(margins.mean()) == pytest.approx(0, abs=0.4)
        assert float(margin(objective.eval(), self.draw(batch, 0))) == pytest.approx(0)

    def test_evaluation_takes_the_mean_over_draws(self) -> None:
        batch = batch_of([[-1.0, -5.0, -0.2, -9.0], [-3.0, -0.1]])
        expected = margin(build("sampo", beta=1.0).eval(), self.draw(batch, 0))
        assert float(expected) == pytest.approx(2 * (-15.2 / 4 + 3.1 / 2))
        torch.testing.assert_close(margin(build("sampo", beta=1.0).eval(), self.draw(batch, 1)), expected)
        draws = [margin(build("sampo", beta=1.0), self.draw(batch, seed)) for seed in range(2000)]
        assert float(torch.stack(draws).mean()) == pytest.approx(float(expected), abs=0.4)
        assert len({round(float(one), 6) for one in draws}) > 3

    def test_averages_count_as_often_as_the_responses_are_long(self) -> None:
        batch = batch_of([[-1.0, -5.0, -0.2, -9.0], [-3.0, -0.1]])
        averaged = build("sampo_averaged", beta=0.1)
        z = 0.1 * 3 * (-15.2 / 4 + 3.1 / 2)
        assert float(averaged.loss(batch).detach()) == pytest.approx(math.log1p(math.exp(-z)))


class TestBridged:
    MARKS = torch.tensor([[[False, True, False], [True, False, False]]])

    def test_responses_that_do_not_differ_make_it_dpo(self) -> None:
        batch = batch_of([[-1.0, -2.0, -0.5], [-3.0]], columns={"differs": torch.zeros_like(self.MARKS)})
        torch.testing.assert_close(build("dpo_bmc", beta=0.3).loss(batch), build("dpo", beta=0.3).loss(batch))

    def test_a_marked_token_pulls_by_its_weight_and_not_by_the_weights_slope(self) -> None:
        batch = batch_of([[-1.0, -0.7, -0.5], [-3.0]], columns={"differs": self.MARKS})
        slope = slope_of(build("dpo_bmc", delta=5.0).loss(batch), batch)
        assert float(slope[0, 0, 1] / slope[0, 0, 0]) == pytest.approx(1 + math.exp(0.7), rel=1e-12)
        assert float(slope[0, 1, 0] / slope[0, 0, 0]) == pytest.approx(-6.0), "held at 1 + δ"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_weight_lies_between_two_and_one_plus_delta(self, dtype: torch.dtype) -> None:
        batch = batch_of([[-1e4, -0.5, 0.0], [0.0]], columns={"differs": torch.ones_like(self.MARKS)})
        policy = TokenLogps(batch.models["policy"].logps.detach().to(dtype), batch.mask)
        batch = replace(batch, models={**batch.models, "policy": policy})
        weights = surprise_weight("policy", 1.5)(batch)[0, 0]
        assert weights.tolist() == pytest.approx([2.5, 2.5, 2.0])

    def test_the_reference_has_the_policys_weights_unless_its_own_are_asked_for(self) -> None:
        rows = [[-1.0, -0.7, -0.5], [-3.0]]
        batch = batch_of(rows, reference=rows, columns={"differs": self.MARKS})
        assert not margin(build("dpo_bmc"), batch).any()
        other = batch_of(rows, reference=[[-1.0, -0.2, -0.5], [-3.0]], columns={"differs": self.MARKS})
        found = margin(build("dpo_bmc", beta=1.0, delta=9.0, reference_weighting="own"), other)
        assert float(found) == pytest.approx(-0.7 * (1 + math.exp(0.7)) + 0.2 * (1 + math.exp(0.2)))


class TestReinforced:
    def rewards(self, batch: PreferenceBatch, *coefficients: float) -> Tensor:
        return token_reward(*coefficients)(batch)

    def batch(self, **others: list[list[float]]) -> PreferenceBatch:
        score = torch.tensor([[3.0, -40.0]]).double()
        return batch_of([[-1.0, -2.0, -0.5], [-3.0]], roles=(), columns={"score": score}, **others)

    def test_the_clip_comes_after_the_scale_and_before_everything_else(self) -> None:
        batch = self.batch(guide=[[0.6, -9.0, 0.1], [0.0]], behaviour=[[5.0, 0.0, 0.0], [0.0]])
        rewards = self.rewards(batch, 0.05, 0.02, 0.01, 1.0)
        assert rewards[0, 0].tolist() == pytest.approx([0.02 - 0.05, -0.02, 0.005 + 3.0])
        assert rewards[0, 1, 0] == pytest.approx(-10.0), "scores are held within ten"

    def test_without_a_clip_the_dense_rewards_add_up_to_the_guides_log_ratio(self) -> None:
        batch = self.batch(guide=[[0.6, -9.0, 0.1], [0.0]])
        rewards = self.rewards(batch, 0.05, 0.0, 0.0, 0.0)
        torch.testing.assert_close(rewards.sum(-1), 0.05 * log_ratio("guide").sum()(batch))

    def test_a_part_without_a_coefficient_needs_nothing(self) -> None:
        assert "guide" not in dry_run(build("rto", beta1=0.0)).models
        assert not dry_run(build("rto", beta3=0.0)).columns

    def test_the_score_belongs_to_the_last_scored_token_and_not_to_the_last_place(self) -> None:
        batch = self.batch()
        mask = torch.tensor([[[True, True, False], [True, False, False]]])
        models = {name: replace(scored, mask=mask) for name, scored in batch.models.items()}
        rewards = self.rewards(replace(batch, models=models), 0.0, 0.0, 0.0, 1.0)
        assert rewards[0, 0].tolist() == [0.0, 3.0, 0.0]

    @given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
    def test_without_a_discount_an_advantage_is_what_is_to_come_less_the_value(
        self, rewards: list[float]
    ) -> None:
        batch = batch_of([rewards], roles=())
        found = GeneralisedAdvantage(log_ratio(), Constant(0.7), 1.0, 1.0)(batch)[0, 0].tolist()
        assert found == pytest.approx([sum(rewards[t:]) - 0.7 for t in range(len(rewards))])

    def test_one_step_advantages_and_holes(self) -> None:
        """Partner turns between two tokens neither earn nor discount."""
        rewards, values = [1.0, 50.0, 2.0], [[[0.1, 70.0, 0.3]]]
        batch = batch_of([rewards], roles=(), columns={"token_score": torch.tensor(values).double()})
        hole = torch.tensor([[[True, False, True]]])
        models = {name: replace(scored, mask=hole) for name, scored in batch.models.items()}
        found = GeneralisedAdvantage(log_ratio(), Column("token_score"), 0.5, 0.0)(
            replace(batch, models=models)
        )
        assert found[0, 0].tolist() == pytest.approx([1.0 + 0.5 * 0.3 - 0.1, 0.0, 2.0 - 0.3])

    def test_on_policy_the_gradient_is_the_advantage_and_passes_through_no_value(self) -> None:
        batch = self.batch(behaviour=[[-1.0, -2.0, -0.5], [-3.0]], reference=[[-1.0, -2.0, -0.5], [-3.0]])
        objective = build("rto", beta1=0.0, gae_lambda=1.0, critic=False)
        slope = slope_of(objective.loss(batch), batch)
        expected = torch.tensor([[[-3.0 / 3] * 3, [10.0, 0.0, 0.0]]]).double() / 2
        torch.testing.assert_close(slope, expected)

    def test_the_policy_term_leaves_the_critic_alone_and_the_critic_the_policy(self) -> None:
        objective = build("rto")
        batch = batch_for(objective)
        policy, critic = objective(batch)
        states = batch.models["policy"].signals[TOKEN_STATE]
        heads = list(objective.parameters())
        assert heads
        assert all(
            slope is None
            for slope in torch.autograd.grad(policy.total, heads, allow_unused=True, retain_graph=True)
        )
        found = torch.autograd.grad(
            critic.total, [batch.models["policy"].logps, states], allow_unused=True, retain_graph=True
        )
        assert found == (None, None)
        assert any(slope.abs().sum() > 0 for slope in torch.autograd.grad(critic.total, heads))

    def test_beyond_the_clip_a_better_token_pulls_no_further(self) -> None:
        batch = self.batch(behaviour=[[-2.0, -2.0, -0.5], [-3.0]])
        slope = slope_of(build("rto", beta1=0.0, beta2=0.0, critic=False).loss(batch), batch)
        assert slope[0, 0, 0] == 0, "the ratio is e, the advantage above 0"
        assert slope[0, 0, 1] < 0
