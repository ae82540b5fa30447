"""Rules that say which responses of a prompt meet."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.feedback.curricula import clear_pairs
from prefero.feedback.judges import ByScore
from prefero.feedback.media_pairs import clear_pair, dominance, ranked
from prefero.feedback.pairing import (
    POINT_PAIRS,
    best_against_worst_few,
    best_and_worst,
    best_and_worst_of_some,
    confident_pairs,
    easy_to_hard,
    max_max,
    max_min,
    max_min_penalised,
    max_random,
    point_pair,
    score_points,
    teacher_pairs,
    verifiable_candidates,
    without_median,
)
from prefero.feedback.thresholds import pools

SCORES = st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=2, max_size=8)


@given(SCORES)
def test_the_better_response_scores_higher_or_there_is_no_pair(scores: list[float]) -> None:
    lengths = list(range(len(scores)))
    for pair in (
        max_min(scores),
        max_random(scores),
        max_max(scores),
        max_min_penalised(scores, lengths, 1.0),
        point_pair(scores),
    ):
        assert pair is None or scores[pair[0]] > scores[pair[1]]
    if len(set(scores)) == 1:
        assert max_min(scores) is None
        assert max_max(scores) is None
        assert point_pair(scores) is None


def test_best_against_the_first_takes_the_second_when_the_first_is_the_best() -> None:
    assert max_random([3.0, 1.0, 0.0]) == (0, 1)
    assert max_random([1.0, 3.0, 0.0]) == (1, 0)


def test_a_length_penalty_picks_the_two_but_does_not_order_them() -> None:
    assert max_min_penalised([2.0, 1.9, 5.0], [10, 0, 100], 0.05) == (2, 1)


def test_a_teachers_response_must_win_by_more() -> None:
    assert teacher_pairs([6, 5, 4, 5]) == [(0, 2), (1, 2), (3, 2)]
    assert teacher_pairs([6, 5, 4, 5], only_teacher=True) == [(0, 2)]
    assert teacher_pairs([4, 4, 1, 1]) == []


@given(SCORES, st.floats(0.5, 0.95), st.floats(0.1, 3))
def test_confident_pairs_are_those_above_the_probability(scores, eta: float, tau: float) -> None:
    pairs = confident_pairs(scores, tau=tau, eta=eta)
    assert all(scores[j] > scores[k] for j, k in pairs)
    assert set(confident_pairs(scores, tau=tau, eta=min(eta + 0.04, 0.99))) <= set(pairs)
    assert set(confident_pairs(scores, tau=tau * 1.5, eta=eta)) <= set(pairs)
    assert confident_pairs([score + 32 for score in scores], tau=tau, eta=eta) == pairs
    if eta == 0.5:
        count = len(scores)
        assert len(pairs) == sum(scores[j] > scores[k] for j in range(count) for k in range(count))


@pytest.mark.parametrize(("options", "message"), [({"eta": 0.4}, "eta is 0.4"), ({"tau": 0.0}, "tau is 0.0")])
def test_equal_scores_in_both_orders_are_refused_as_a_setting(options, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        confident_pairs([1.0, 1.0], **options)


def test_all_ways_to_take_a_higher_point() -> None:
    assert len(POINT_PAIRS) == len(set(POINT_PAIRS)) == 21
    points = score_points([0.0, 1.0, 2.0, 9.0])
    order = list(points)
    assert all(order.index(better) > order.index(worse) for better, worse in POINT_PAIRS)


@given(SCORES)
def test_the_worst_of_all_is_best_against_worst(scores) -> None:
    assert best_and_worst_of_some(scores, range(len(scores))) == max_min(scores)


def test_the_worst_of_five_does_not_get_worse_with_more_samples_and_the_worst_of_all_does() -> None:
    numbers = torch.Generator().manual_seed(0)
    rejected: dict[int, tuple[float, float]] = {}
    for count in (8, 64):
        drawn = torch.randn(400, count, generator=numbers)
        pairs = [best_and_worst_of_some(row.tolist(), range(5)) for row in drawn]
        some = [float(row[pair[1]]) for row, pair in zip(drawn, pairs, strict=True) if pair]
        rejected[count] = (sum(some) / len(some), float(drawn.min(1).values.mean()))
    assert abs(rejected[64][0] - rejected[8][0]) < 0.15
    assert rejected[64][1] < rejected[8][1] - 0.5


@given(SCORES)
def test_easy_pairs_come_first_and_the_better_response_stays(scores) -> None:
    pairs = easy_to_hard(scores)
    gaps = [scores[better] - scores[worse] for better, worse in pairs]
    assert gaps == sorted(gaps, reverse=True)
    assert all(gap > 0 for gap in gaps)
    assert {better for better, _ in pairs} <= {best_and_worst(scores)[0]}


def test_the_order_may_be_the_references() -> None:
    assert easy_to_hard([1.0, 5.0, 2.0], [-3.0, -1.0, -9.0]) == [(1, 2), (1, 0)]


CASES = [
    ([1, 1, 1, 1], [1, 2, 3, 4], None, []),
    ([0, 0, 0, 0], [15, 80, 33, 79], 1, [0, 2, 3]),
    ([1, 0, -1], [5, 9, 2], 0, [2]),
    ([1, 0, 1, 0], [2300, 100, 1500, 90], 2, [1, 3]),
    ([1, 0, 1], [2300, 100, 2048], 0, [1]),
    ([0], [5], None, []),
    ([0, -1], [5, 6], 0, [1]),
    ([-1, -1], [5, 6], None, []),
]


@pytest.mark.parametrize(("verdicts", "lengths", "chosen", "rejected"), CASES)
def test_verified_responses(verdicts, lengths, chosen, rejected) -> None:
    assert verifiable_candidates(verdicts, lengths) == (chosen, rejected)


def test_two_wrong_answers_may_be_left_out() -> None:
    assert verifiable_candidates([0, -1], [5, 6], both_wrong=False) == (None, [])
    assert verifiable_candidates([1, 0], [5, 6], both_wrong=False) == (0, [1])


@given(SCORES)
def test_the_few_best_meet_the_few_worst_and_none_is_both(scores) -> None:
    pairs = best_against_worst_few(scores)
    assert all(scores[better] > scores[worse] for better, worse in pairs)
    assert not {better for better, _ in pairs} & {worse for _, worse in pairs}
    if len(set(scores)) == len(scores) >= 4:
        assert len(pairs) == 4


def test_the_response_in_the_middle_is_left_out_of_an_odd_number() -> None:
    assert without_median([3.0, 9.0, 5.0, 1.0, 7.0]) == [0, 1, 3, 4]
    assert without_median([3.0, 9.0]) == [0, 1]


@pytest.mark.parametrize(
    "rule",
    [
        best_and_worst,
        max_min,
        max_random,
        max_max,
        lambda scores: max_min_penalised(scores, [1, 2, 3], 0.1),
        best_against_worst_few,
        without_median,
        teacher_pairs,
        confident_pairs,
        point_pair,
        score_points,
        lambda scores: best_and_worst_of_some(scores, [0, 1]),
        easy_to_hard,
        ranked,
        pools,
        lambda scores: clear_pairs([scores]),
        lambda scores: clear_pair(scores),
        lambda scores: dominance(scores, [0.0, 0.0, 0.0]),
    ],
)
def test_no_rule_takes_what_is_not_a_number_for_a_score(rule: Callable[[list[float]], object]) -> None:
    """Where it stands in the list would decide whether it is the best."""
    for scores in ([math.nan, 1.0, 2.0], [1.0, math.nan, 2.0], [1.0, 2.0, math.nan]):
        with pytest.raises(PreferoError, match="is not a number"):
            rule(scores)


def test_a_judge_by_scores_refuses_what_is_not_a_number() -> None:
    with pytest.raises(PreferoError, match="no numbers that compare"):
        ByScore(lambda prompt, text: math.nan if text == "b" else 1.0)("p", "a", "b")
