"""Steps, turns and trees: which tokens are scored, how much each step weighs, and what stays out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.objectives import PreferenceBatch, TokenLogps, dry_run, method, primary
from prefero.objectives.presets.length import occupancy
from prefero.objectives.presets.steps import BranchWeight
from prefero.objectives.quantities import Column
from prefero.objectives.segments import StepCount, StepIndex, StepShare
from prefero.objectives.signals import TOKEN_STATE
from prefero.search.temperatures import rising
from prefero.search.tree import Child, backed_up, puct, step_prior
from tests.objectives.batches import build, pair_batch, slope_of


def batch_of(steps, *, ratios=None, mask=None, roles=("chosen", "rejected"), seed=0, **columns):
    """Responses with these steps, [example][response][token]; the reference gives −1 to every token."""
    step = torch.tensor(steps)
    numbers = torch.Generator().manual_seed(seed)
    if ratios is None:
        ratios = torch.rand(step.shape, generator=numbers, dtype=torch.float64) - 0.5
    mask = torch.ones_like(step, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    logps = torch.where(mask, ratios - 1, 0).requires_grad_()
    reference = torch.where(mask, torch.full_like(ratios, -1.0), 0)
    models = {"policy": TokenLogps(logps, mask), "reference": TokenLogps(reference, mask)}
    return PreferenceBatch(models, {"step": step, **columns}, roles)


def loss_and_slope(key: str, batch: PreferenceBatch, **arguments):
    loss = build(key, **arguments).loss(batch)
    return loss.detach(), slope_of(loss, batch)


def assert_same(first, second) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


# which step a token belongs to


def test_tokens_between_steps_and_an_end_token_belong_to_the_step_before_them() -> None:
    batch = batch_of([[[0, 1, 1, 0, 2, 0]]], roles=())
    assert StepIndex()(batch).tolist() == [[[0, 0, 0, 0, 1, 1]]]
    assert StepCount()(batch).tolist() == [[2]]


def test_a_response_without_steps_is_one_step() -> None:
    batch = batch_of([[[0, 0, 0]]], roles=(), token_score=torch.zeros(1, 1, 3))
    assert StepCount()(batch).tolist() == [[1]]
    assert StepShare(Column("token_score"), 3.0)(batch).tolist() == [[[1, 1, 1]]]


def test_steps_are_counted_where_they_are_scored_whatever_their_numbers() -> None:
    """Steps 1 and 3 are shown by the environment; the largest number would count four."""
    batch = batch_of([[[1, 2, 2, 3, 4, 4]]], roles=(), mask=[[[0, 1, 1, 0, 1, 1]]])
    assert StepCount()(batch).tolist() == [[2]]
    assert StepIndex()(batch)[0, 0, [1, 2, 4, 5]].tolist() == [0, 0, 1, 1]


# DMPO


def test_one_turn_on_either_side_is_dpo() -> None:
    batch = batch_of([[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]])
    assert_same(loss_and_slope("dmpo", batch), loss_and_slope("dpo", batch))


def weights(turns: int, gamma: float) -> list[float]:
    return occupancy(torch.arange(turns).double(), torch.tensor(float(turns)).double(), gamma).tolist()


@pytest.mark.parametrize("gamma", [0.1, 0.7, 0.99])
def test_the_weight_of_a_turn(gamma: float) -> None:
    phi = weights(5, gamma)
    assert phi[0] == 1, "the weights are not normalised to one"
    assert phi == sorted(phi, reverse=True)
    assert phi[-1] == pytest.approx(gamma**4 * (1 - gamma) / (1 - gamma**5))


def test_the_weight_of_a_turn_worked_out_by_hand() -> None:
    assert weights(2, 0.7) == pytest.approx([1, 0.4117647], rel=1e-6)
    assert weights(4, 1.0) == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("gamma", [1 - 1e-6, 1 - 1e-9, 1 - 1e-13])
def test_the_weight_of_a_turn_keeps_its_digits_near_one(gamma: float) -> None:
    """1 − γ^T written out loses them all."""
    assert weights(4, gamma) == pytest.approx([1, 0.75, 0.5, 0.25], rel=1e-5)


def test_a_small_gamma_leaves_the_first_turn() -> None:
    batch = batch_of([[[1, 2, 3], [1, 1, 2]]])
    _, slope = loss_and_slope("dmpo", batch, gamma=1e-9)
    assert slope[0, 0, 0] < 0 < slope[0, 1, 0]
    assert slope[0, :, 2].abs().max() < 1e-9
    assert slope[0, 0, 1].abs() < 1e-9


def test_a_tokens_pull_in_dmpo_is_its_turns_weight_of_its_own_side() -> None:
    batch = batch_of([[[1, 1, 2, 3], [1, 2, 2, 2]]])
    objective = build("dmpo", beta=0.3, gamma=0.5)
    margin = primary(objective).comparisons(batch).margins
    pull = 0.3 * torch.sigmoid(-margin.detach()).item()
    slope = slope_of(objective.loss(batch), batch)[0] / pull
    three, two = weights(3, 0.5), weights(2, 0.5)
    assert (-slope[0]).tolist() == pytest.approx([three[0], three[0], three[1], three[2]])
    assert slope[1].tolist() == pytest.approx([two[0], two[1], two[1], two[1]])


# Step-DPO and step-controlled DPO


STEPS = [[[1, 1, 2, 2, 3, 0], [1, 1, 2, 3, 3, 0]]]


def test_step_dpo_scores_the_wrong_step_alone() -> None:
    batch = batch_of(STEPS, error_step=torch.tensor([2]))
    _, slope = loss_and_slope("step_dpo", batch)
    assert (slope[0] != 0).tolist() == [
        [False, False, True, True, False, False],
        [False, False, True, False, False, False],
    ]


def test_scdpo_scores_everything_from_the_split_on_with_the_end_token() -> None:
    batch = batch_of(STEPS, error_step=torch.tensor([2]))
    _, slope = loss_and_slope("scdpo", batch)
    assert (slope[0] != 0).tolist() == [[False, False, True, True, True, True]] * 2


@pytest.mark.parametrize("key", ["step_dpo", "scdpo"])
def test_the_shared_steps_change_nothing(key: str) -> None:
    batch = batch_of(STEPS, error_step=torch.tensor([2]))
    policy = batch.models["policy"]
    shifted = policy.logps + torch.tensor([5.0, -9.0, 0, 0, 0, 0])
    moved = replace(batch, models={**batch.models, "policy": TokenLogps(shifted, policy.mask)})
    torch.testing.assert_close(build(key).loss(batch), build(key).loss(moved))


def test_scdpo_split_at_the_first_step_is_dpo() -> None:
    batch = batch_of(STEPS, error_step=torch.tensor([1]))
    assert_same(loss_and_slope("scdpo", batch), loss_and_slope("dpo", batch))


def test_step_dpo_of_single_steps_is_dpo() -> None:
    """As pairs of steps are read: the steps before are in the prompt, the number is the step's own."""
    batch = batch_of([[[4, 4, 4], [4, 4, 4]]], error_step=torch.tensor([4]))
    assert_same(loss_and_slope("step_dpo", batch), loss_and_slope("dpo", batch, beta=0.5))


def test_temperatures_rise_from_the_split_to_their_cap() -> None:
    found = rising(1.1, 0.1, 1.4)
    assert [next(found) for _ in range(6)] == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.4, 1.4])


# Full-Step-DPO


def scored(gamma: float, scores, **arguments):
    """A pair whose sides have three steps, of 1, 2 and 1 tokens; the objective, and the tokens' weights."""
    steps = [[[1, 2, 2, 3]] * 2]
    batch = batch_of(steps, token_score=torch.tensor([scores], dtype=torch.float64))
    objective = method("full_step_dpo", beta=0.1, gamma=gamma, **arguments).double()
    (slope,) = torch.autograd.grad(primary(objective).reward(batch).sum(), batch.models["policy"].logps)
    return batch, objective, slope[0] / 0.1


SCORES = [[0.9, 0.2, 0.2, 0.5]] * 2


def test_weights_add_up_to_the_number_of_steps_or_to_one() -> None:
    for weight_sum, total in (("steps", 3.0), ("one", 1.0)):
        _, _, weight = scored(2.0, SCORES, weight_sum=weight_sum)
        assert (weight[:, 0] + weight[:, 1] + weight[:, 3]).tolist() == pytest.approx([total, total])
        assert torch.equal(weight[:, 1], weight[:, 2]), "a step's tokens weigh the same"


def test_good_steps_lead_the_chosen_side_and_bad_ones_the_rejected() -> None:
    """One sign on both sides would unlearn the good steps of a wrong answer."""
    _, _, weight = scored(2.0, SCORES)
    chosen, rejected = weight[:, [0, 1, 3]]
    assert chosen.argsort().tolist() == [1, 2, 0]
    assert rejected.argsort().tolist() == [0, 2, 1]


def test_a_large_gamma_leaves_the_best_and_the_worst_step() -> None:
    _, _, weight = scored(1e3, SCORES)
    assert weight[0].tolist() == pytest.approx([3, 0, 0, 0])
    assert weight[1].tolist() == pytest.approx([0, 3, 3, 0])


@pytest.mark.parametrize("scores", [[[0.4] * 4, [0.4] * 4], [[0.1] * 4, [0.8] * 4]])
def test_equal_scores_are_dpo(scores) -> None:
    batch, objective, _ = scored(5.0, scores)
    plain = method("dpo", beta=0.1).double()
    torch.testing.assert_close(objective.loss(batch), plain.loss(batch))


def test_one_step_is_dpo() -> None:
    batch = batch_of([[[1, 1], [1, 0]]], token_score=torch.rand(1, 2, 2))
    assert_same(loss_and_slope("full_step_dpo", batch), loss_and_slope("dpo", batch))


def test_the_plain_pull_has_dpos_value_and_the_weighted_margins_gradient() -> None:
    batch, objective, weight = scored(2.0, SCORES, pull="plain")
    plain = method("dpo", beta=0.1).double()
    loss = objective.loss(batch)
    torch.testing.assert_close(loss, plain.loss(batch))
    margin = primary(plain).comparisons(batch).margins.detach()
    expected = 0.1 * torch.sigmoid(-margin).item() * weight
    expected[0] *= -1
    torch.testing.assert_close(slope_of(loss, batch)[0], expected)


# MCTS-DPO


def visited(chosen: float, rejected: float, margin: float) -> PreferenceBatch:
    return pair_batch([margin], [0.0], {"visits": torch.tensor([[chosen, rejected]]).double()})


def test_many_more_visits_of_the_chosen_are_dpo() -> None:
    batch = visited(1e15, 1, 0.7)
    assert_same(loss_and_slope("mcts_dpo", batch), loss_and_slope("dpo", batch))


def test_as_many_visits_pull_the_margin_to_nothing() -> None:
    for margin, sign in ((2.0, 1), (0.0, 0), (-2.0, -1)):
        _, slope = loss_and_slope("mcts_dpo", visited(5, 5, margin))
        assert torch.sign(slope[0, 0, 0]).item() == sign


def test_the_label_is_never_turned_around() -> None:
    """Without a cap ε of 1 and 99 visits is .99."""
    assert_same(
        loss_and_slope("mcts_dpo", visited(1, 99, 0.4)), loss_and_slope("mcts_dpo", visited(5, 5, 0.4))
    )


@pytest.mark.parametrize(("visits", "rate"), [((9, 4), 4 / 13), ((0, 0), 0.0), ((0, 1), 0.5), ((3, 1), 0.25)])
def test_the_rate_out_of_the_visits(visits, rate: float) -> None:
    loss, _ = loss_and_slope("mcts_dpo", visited(*visits, 2.0), beta=1.0)
    right, wrong = math.log1p(math.exp(-2.0)), math.log1p(math.exp(2.0))
    assert loss.item() == pytest.approx((1 - rate) * right + rate * wrong)


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
def test_each_siblings_log_ratio_is_divided_by_a_power_of_its_own_length(penalty: float) -> None:
    """By the pair's mean length, or the padded one, the two would stay in proportion."""
    ratios = torch.tensor([[[0.8, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]]]).double()
    mask = [[[1, 0, 0, 0], [1, 1, 1, 1]]]
    batch = batch_of(
        [[[1] * 4, [1] * 4]], ratios=ratios, mask=mask, visits=torch.tensor([[1e15, 1.0]]).double()
    )
    loss, _ = loss_and_slope("mcts_dpo", batch, beta=1.0, length_penalty=penalty)
    assert loss.item() == pytest.approx(math.log1p(math.exp(0.4 / 4**penalty - 0.8)))


def test_an_unvisited_child_with_a_large_prior_is_explored_first() -> None:
    known, new = Child(0.3, 0.2, 9, 0.4), Child(0.0, 0.0, 0, 0.9)
    assert puct(new, 10) > puct(known, 10)
    assert puct(new, 10, exploration=0.0) < puct(known, 10, exploration=0.0)


def test_a_node_is_worth_its_childrens_values_by_visits() -> None:
    children = [Child(1.0, 0.0, 3, 0.5), Child(0.0, -1.0, 0, 0.5)]
    assert backed_up(children) == pytest.approx((3 * 1.0 + 1 * -1.0) / 4)
    assert backed_up(children, gamma=0.0) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="without children"):
        backed_up([])
    with pytest.raises(ValueError, match="without tokens"):
        step_prior([])


# trees


def branches(scores, *, ratios=None, steps=None, states=None, seed=0) -> PreferenceBatch:
    score = torch.tensor([scores], dtype=torch.float64)
    steps = [[[1, 1, 2]] * len(scores)] if steps is None else steps
    if ratios is not None:
        ratios = torch.tensor(ratios, dtype=torch.float64)[None, :, None].expand(1, -1, 3) / 3
    batch = batch_of(steps, ratios=ratios, roles=(), seed=seed, score=score)
    if states is None:
        return batch
    policy = batch.models["policy"]
    signals = {TOKEN_STATE: torch.tensor(states, dtype=torch.float64)[None].requires_grad_()}
    return replace(batch, models={**batch.models, "policy": TokenLogps(policy.logps, policy.mask, signals)})


def plain_tree(beta: float = 0.5):
    return method("tpo_tree", beta=beta, step_weight="none").double()


@pytest.mark.parametrize("ratios", [[0.4, -0.1], [-0.1, 0.4]])
def test_two_branches_are_dpo_times_a_constant_whoever_is_ahead(ratios) -> None:
    batch = branches([0.9, 0.2], ratios=ratios)
    pair = replace(batch, roles=("chosen", "rejected"))
    constant = (2**0.9 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    torch.testing.assert_close(plain_tree().loss(batch), constant * build("dpo", beta=0.5).loss(pair))


def test_equal_scores_cost_nothing() -> None:
    batch = branches([0.5, 0.5, 0.5], ratios=[0.3, -0.2, 0.1])
    loss = plain_tree().loss(batch)
    assert loss == 0
    assert torch.equal(slope_of(loss, batch), torch.zeros(1, 3, 3).double())


def test_training_starts_where_policy_and_reference_agree() -> None:
    """All rewards are 0 there; if equal rewards shared a place, every λ would be 0 and nothing would move."""
    batch = branches([0.1, 0.9, 0.5], ratios=[0.0, 0.0, 0.0])
    slope = slope_of(plain_tree().loss(batch), batch)[0, :, 0]
    assert slope[1] < 0 < slope[0]


def test_places_are_those_of_the_current_rewards_and_not_of_the_scores() -> None:
    objective = plain_tree(beta=1.0)
    right, reverse = (branches([0.9, 0.5, 0.1], ratios=ratios) for ratios in ([2, 1, 0], [0, 2, 1]))
    first, second = (
        objective.weight(objective.comparisons(batch)).reshape(3, 3)[0, 1] for batch in (right, reverse)
    )
    gain = 2**0.9 - 2**0.5
    assert first.item() == pytest.approx(gain * (1 / math.log(2) - 1 / math.log(3)))
    assert second.item() == pytest.approx(gain * (1 / math.log(2) - 1 / math.log(4)))


def test_a_descent_step_orders_the_branches() -> None:
    batch = branches([0.0, 0.4, 1.0], ratios=[0.6, 0.1, -0.4])
    logps = batch.models["policy"].logps
    objective = plain_tree()
    before = objective.loss(batch)
    slope = slope_of(before, batch)
    assert slope[0, 2, 0] < 0 < slope[0, 0, 0]
    moved = TokenLogps(logps - 0.5 * slope, batch.mask)
    assert objective.loss(replace(batch, models={**batch.models, "policy": moved})) < before


STATES = [
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
    [[3.0, 0.0], [1.0, 0.0], [0.0, -1.0]],
]
"""The first step points the same way in both, the second one the opposite way."""


def test_steps_alike_count_nothing_and_steps_apart_count_twice() -> None:
    batch = branches([1.0, 0.0], states=STATES)
    weight = BranchWeight(Column("score"), "dissimilarity")(batch)[0]
    assert weight.tolist() == [pytest.approx([0, 0, 2]), pytest.approx([0, 0, 2])]
    weight = BranchWeight(Column("score"), "similarity")(batch)[0]
    assert weight.tolist() == [pytest.approx([2, 2, 0]), pytest.approx([2, 2, 0])]


def test_steps_beyond_the_shortest_response_belong_to_its_last() -> None:
    """The best branch has one step; the other's two are compared with it as one."""
    batch = branches([1.0, 0.0], steps=[[[1, 1, 1], [1, 2, 2]]], states=STATES)
    weight = BranchWeight(Column("score"), "dissimilarity")(batch)[0]
    best, other = torch.tensor([2.0, 1.0]), torch.tensor([4.0, -1.0])
    cosine = torch.nn.functional.cosine_similarity(best, other, dim=0).item()
    assert weight.tolist() == [pytest.approx([1 - cosine] * 3)] * 2


def test_an_absent_branch_is_not_the_shortest_nor_the_best() -> None:
    batch = branches([1.0, 0.0, 9.0], steps=[[[1, 2, 3]] * 3], states=[*STATES, STATES[0]])
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    mask[0, 2] = False
    policy = batch.models["policy"]
    cut = replace(batch, models={"policy": replace(policy, mask=mask)})
    two = BranchWeight(Column("score"), "dissimilarity")(cut)[0, :2]
    assert two.tolist() == [pytest.approx([0, 0, 2])] * 2


def test_the_steps_weights_get_no_gradient() -> None:
    batch = branches([1.0, 0.0], states=STATES)
    states = batch.models["policy"].signals[TOKEN_STATE]
    loss = build("tpo_tree").loss(batch)
    assert torch.autograd.grad(loss, states, allow_unused=True) == (None,)


# what they read


BOTH = {"policy", "reference"}
PAIR, POLICY = ("chosen", "rejected"), {"policy"}

NEEDS = {
    "dmpo": (PAIR, {"step"}, BOTH),
    "step_dpo": (PAIR, {"step", "error_step"}, BOTH),
    "scdpo": (PAIR, {"step", "error_step"}, BOTH),
    "full_step_dpo": (PAIR, {"step", "token_score"}, BOTH),
    "mcts_dpo": (PAIR, {"visits"}, BOTH),
    "tpo_tree": ((), {"step", "score"}, BOTH),
    "pmpo": ((), {"label"}, BOTH),
    "tpo_triple": ((*PAIR, "gold"), set(), POLICY),
    "tpo_l": ((*PAIR, "gold"), set(), POLICY),
    "discounted_dpo": (PAIR, set(), BOTH),
    "relevance_weighted_dpo": (PAIR, {"segment"}, BOTH),
    "modpo": (PAIR, {"other_score"}, BOTH),
    "vdpo": (("chosen",), set(), BOTH),
    "z_loss": ((), set(), POLICY),
    "rankdpo": ((), {"win_rate"}, BOTH),
    "smpo": (PAIR, {"score"}, BOTH),
    "diffusion_cpo": (PAIR, set(), POLICY),
}


@pytest.mark.parametrize("key", NEEDS)
def test_what_is_read(key: str) -> None:
    needs = dry_run(build(key))
    assert (needs.roles, set(needs.columns), set(needs.models)) == NEEDS[key]
    assert needs.exact


def test_the_states_of_tokens_are_measured_only_where_steps_are_told_apart_by_them() -> None:
    def signals(kind: str):
        return dry_run(build("tpo_tree", step_weight=kind)).models["policy"]

    assert signals("dissimilarity") == signals("similarity") == {TOKEN_STATE}
    assert signals("given") == signals("none") == frozenset()
