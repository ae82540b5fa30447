"""Chains with answers, augmented clips, and a model's own tests: which of them make pairs."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from prefero.errors import PreferoError
from prefero.feedback.augmentations import close_set, close_to_far
from prefero.feedback.chains import best_of, cut, right_and_wrong, teaches, voted
from prefero.feedback.self_tests import minimax_pair


@pytest.mark.parametrize(
    ("answers", "kept"), [("aaaa", False), ("bbbb", False), ("abbb", True), ("aaab", True)]
)
def test_a_question_that_all_or_none_answer_teaches_nothing(answers: str, kept: bool) -> None:
    assert teaches(list(answers), "a") is kept
    assert not teaches(list("aaaa"), "a", max_accuracy=1.0), "there is no wrong chain to reject"


def test_every_chain_is_right_or_wrong() -> None:
    right, wrong = right_and_wrong(list("abca"), "a")
    assert (right, wrong) == ([0, 3], [1, 2])


def test_equal_rewards_are_a_majority_vote() -> None:
    answers = list("babca")
    assert voted(answers, [1.0] * 5) == voted(answers) == "b", "of equal ones the first seen"


def test_a_frequent_answer_with_negative_rewards_loses() -> None:
    """A mean, or a vote by the best chain, would decide otherwise."""
    assert voted(["a", "a", "b"], [-1.0, -1.0, -1.5]) == "b"
    assert voted(["a", "a", "b"], [1.0, 1.0, 1.5]) == "a"
    assert best_of(["a", "a", "b"], [1.0, 1.0, 1.5]) == "b"


def test_a_length_of_one_or_less_is_a_share_with_a_floor() -> None:
    text = " ".join(map(str, range(10)))
    assert cut(text, 4) == "0 1 2 3"
    assert cut(text, 0.5, fewest=2) == "0 1 2 3 4"
    assert cut(text, 0.1, fewest=3) == "0 1 2"
    assert cut(text, 0.1) == text


# augmented clips


def test_one_close_candidate_is_taken_and_all_of_them_are_ordered_by_the_prompt() -> None:
    alike, prompted = [0.2, 0.9, 0.6], [0.1, 0.8, 0.5]
    assert close_to_far(alike, prompted, 1) == 1
    assert close_to_far(alike, prompted, 3) == 0
    assert close_to_far(alike, prompted, 2) == 2, "the farthest of all is too far to be compared"
    assert close_set(alike, 2) == [1, 2]


def test_the_order_of_candidates_does_not_matter() -> None:
    alike, prompted = [0.2, 0.9, 0.6, 0.7], [0.1, 0.8, 0.5, 0.4]
    chosen = {
        alike[order[close_to_far([alike[i] for i in order], [prompted[i] for i in order], 2)]]
        for order in itertools.permutations(range(4))
    }
    assert chosen == {0.7}


def test_clips_without_similarities_are_refused() -> None:
    with pytest.raises(ValueError, match="2 similarities and 1 to the prompt"):
        close_to_far([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="one candidate at least"):
        close_to_far([], [])


# programs and their own tests


def random_matrix(seed: int) -> list[list[bool]]:
    numbers = random.Random(seed)
    return [[numbers.random() < 0.5 for _ in range(4)] for _ in range(5)]


@pytest.mark.parametrize("rule", ["fewest", "most"])
@pytest.mark.parametrize("seed", range(20))
def test_the_chosen_program_passes_its_test_and_the_rejected_fails(seed: int, rule) -> None:
    passes = random_matrix(seed)
    pair = minimax_pair(passes, rule)
    assert pair is not None
    chosen, rejected = pair
    assert passes[chosen.code][chosen.test]
    assert not passes[rejected.code][rejected.test]


@pytest.mark.parametrize("seed", range(5))
def test_a_test_that_everything_passes_changes_no_program(seed: int) -> None:
    passes = random_matrix(seed)
    first, second = minimax_pair(passes), minimax_pair([[*row, True] for row in passes])
    assert first is not None
    assert second is not None
    assert [one.code for one in first] == [one.code for one in second]


@pytest.mark.parametrize("value", [True, False])
def test_all_or_nothing_passing_makes_no_pair(value: bool) -> None:
    assert minimax_pair([[value] * 3] * 3) is None
    assert minimax_pair([[True, False]] * 2) is None, "no program is better than another"


def test_one_wrong_test_does_not_unseat_a_program_that_leads_by_two() -> None:
    passes = [[True, True, True], [True, False, False], [False, False, False]]
    wrong = [[*row, place != 0] for place, row in enumerate(passes)]
    pair = minimax_pair(wrong)
    assert pair is not None
    assert pair[0].code == 0


def test_an_answer_that_could_not_be_read_has_no_vote() -> None:
    assert voted([None, "", " ", "a", None]) == "a"
    assert voted([None, "a", "b"], [9.0, 1.0, 2.0]) == "b"
    assert voted([None, ""]) is None


def test_a_reward_that_is_not_a_number_does_not_win() -> None:
    for count in (voted, best_of):
        with pytest.raises(PreferoError, match="score 1 of 2 is not a number"):
            count(["a", "b"], [math.nan, 1.0])
