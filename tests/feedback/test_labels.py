"""How sure a label is, what a model says of its own responses, and what it says afterwards."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.errors import PreferoError
from prefero.feedback.aspects import regression_loss, weighted_sum
from prefero.feedback.hindsight import normalised_rating, preferred_index, shopping_utilities
from prefero.feedback.implicit import debiased_pairs, ensembled, length_penalty, mean_length_gap
from prefero.feedback.recipes import Candidate, separation, source_pairs
from prefero.feedback.schedules import generator_version, replay_limits, stepwise
from prefero.feedback.uncertainty import disagreement, flip_rate, majority_agrees, sampling_probability
from prefero.feedback.win_rates import group_win_rates, preference_matrix
from prefero.feedback.yes_no import answer_mass, yes_share


def test_passes_that_agree_are_certain_and_opposite_ones_are_not() -> None:
    passes = torch.tensor([[0.3, 1.0, 0.0], [0.3, 0.0, 0.0]], dtype=torch.float64)
    assert disagreement(passes).tolist() == pytest.approx([0.0, math.log(2), 0.0])
    drawn = sampling_probability(disagreement(passes))
    assert float(drawn.sum()) == pytest.approx(1)
    assert drawn[1] < drawn[0]


def test_half_of_the_passes_is_no_majority() -> None:
    passes = torch.tensor([[0.6, 0.6, 0.1], [0.4, 0.9, 0.2], [0.7, 0.2, 0.9], [0.2, 0.8, 0.1]])
    assert majority_agrees(passes).tolist() == [False, True, False]


def test_the_printed_flip_rate_would_reverse_every_label() -> None:
    bald = torch.rand(50, generator=torch.Generator().manual_seed(0)) * math.log(2)
    assert (flip_rate(bald, "literal") > 0.5).all()
    assert (flip_rate(bald, "unnormalised", mu=4.0) < 0.5).all()
    assert not flip_rate(bald).any()


def test_a_model_that_says_neither_yes_nor_no_is_seen() -> None:
    logits = torch.tensor([[5.0, 2.0, 1.0, 0.0], [0.0, 3.0, 3.0, 9.0]])
    share = yes_share(logits, [1], [2])
    assert share.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 0.5])
    torch.testing.assert_close(yes_share(logits + 7, [1], [2]), share)
    other = logits.clone()
    other[:, 3] += 4
    torch.testing.assert_close(yes_share(other, [1], [2]), share)
    assert answer_mass(other, [1], [2])[1] < answer_mass(logits, [1], [2])[1] < 0.01
    assert yes_share(torch.tensor([[0.0, 0.0, 0.0]]), [0, 1], [2]).tolist() == pytest.approx([2 / 3])


SCORES, LENGTHS = [[3.0, 2.9, 0.0], [1.0, 0.2, 0.1]], [[90, 20, 30], [70, 50, 60]]
GRID = [0.001 * step for step in range(200)]


def test_a_length_penalty_makes_best_and_worst_alike_in_length() -> None:
    found = length_penalty(SCORES, LENGTHS, GRID, stop_early=False)
    plain = mean_length_gap(debiased_pairs(SCORES, LENGTHS, 0.0), LENGTHS)
    assert abs(found.gap) <= abs(plain)
    doubled = [[2 * score for score in row] for row in SCORES]
    wide = length_penalty(doubled, LENGTHS, [2 * alpha for alpha in GRID], stop_early=False)
    assert wide.alpha == pytest.approx(2 * found.alpha)


def test_equal_lengths_need_no_penalty() -> None:
    assert length_penalty(SCORES, [[5, 5, 5]] * 2, GRID).alpha == 0


def test_stopping_early_stops_at_the_first_wider_gap() -> None:
    # the gaps over this grid are 2, -4 and 0
    scores, lengths = [[1.0, 0.0, 0.55]], [[3, 1, 5]]
    tried = [length_penalty(scores, lengths, [alpha]).gap for alpha in (0.0, -0.3, 0.3)]
    assert abs(tried[1]) > abs(tried[0])
    early = length_penalty(scores, lengths, [0.0, -0.3, 0.3])
    assert len(early.tried) == 2
    assert early.alpha == 0.0


def test_an_ensemble_of_equal_rounds_is_either() -> None:
    rewards = torch.tensor([0.3, -1.0])
    torch.testing.assert_close(ensembled(rewards, rewards, 0.7), rewards)
    torch.testing.assert_close(ensembled(rewards, torch.zeros(2), 0.0), rewards)


def test_win_rates_of_a_group_count_a_response_against_itself() -> None:
    preference = preference_matrix(torch.tensor([2.0, 0.0, -1.0]))
    torch.testing.assert_close(preference + preference.T, torch.ones(3, 3))
    rates = group_win_rates(preference)
    assert float(rates.mean()) == pytest.approx(0.5)
    assert group_win_rates(torch.tensor([[0.5]])).tolist() == [0.5]


@pytest.mark.parametrize(("every", "versions"), [(1, [0, 1, 2, 3]), (2, [0, 0, 2, 2]), (None, [0] * 4)])
def test_the_generator_is_as_old_as_its_last_synchronisation(every, versions) -> None:
    assert [generator_version(step, every) for step in range(4)] == versions


def test_every_stage_starts_from_the_model_that_is_its_reference() -> None:
    stages = stepwise(3)
    assert all(stage.start_from == stage.reference for stage in stages)
    assert [stage.start_from for stage in stages] == ["S", *(stage.output for stage in stages[:-1])]
    assert len({stage.data for stage in stages}) == 3


def test_older_rounds_are_replayed_half_as_much() -> None:
    assert replay_limits(3) == pytest.approx([0.3, 0.15, 0.075])
    assert replay_limits(0) == []


def test_recipes_keep_to_their_sources() -> None:
    pool = [Candidate("self", 0.1), Candidate("strong", 0.9), Candidate("self", 0.1), Candidate("self", -2.0)]
    found = source_pairs(pool)
    assert found["self_rm"] == (0, 3)
    assert found["strong_self"] == (1, 0)
    assert found["pool_rm"] == (1, 3)
    assert found["hc_self"] is None
    assert source_pairs(pool[:1])["self_rm"] is None
    assert source_pairs([pool[0], pool[2]])["self_rm"] is None


def test_two_styles_are_told_apart_and_one_is_not() -> None:
    numbers = torch.Generator().manual_seed(0)
    one, other, new, fresh = (torch.randn(200, 5, generator=numbers).double() for _ in range(4))
    probe = separation(one + 3, other)
    assert probe.accuracy_on(new + 3, fresh) > 0.98
    assert separation(other, one + 3).accuracy == probe.accuracy
    assert abs(separation(one, other).accuracy_on(new, fresh) - 0.5) < 0.1


def test_what_is_bought_is_judged_by_what_it_is() -> None:
    utilities = shopping_utilities([1021, 1816, 1486], [True, False, True])
    assert utilities == pytest.approx([1.0, -1.0, 1021 / 1486, 0.0])
    assert shopping_utilities([300], [False]) == [-1.0, 0.0]
    assert [normalised_rating(rating) for rating in (1, 3, 5)] == [-1, 0, 1]
    assert [preferred_index(pair) for pair in ([4, 2], [2, 4], [3, 3])] == [0, 1, None]
    with pytest.raises(PreferoError, match="a rating is 6"):
        normalised_rating(6)


def test_aspects_are_weighted_before_anything_else() -> None:
    aspects = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert weighted_sum(aspects, torch.tensor([0.25, 0.75])).tolist() == [0.25, 0.5]
    assert weighted_sum(aspects, torch.tensor([1.0, 0.0])).tolist() == aspects[:, 0].tolist()
    assert regression_loss(aspects, torch.zeros(2, 2)).tolist() == [0.5, 0.25]
