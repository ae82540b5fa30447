from __future__ import annotations

from prefero.feedback.tournament import tournament

STRENGTH = [3, 7, 1, 0, 6, 2, 5, 4]


def beats(first: int, second: int) -> bool:
    return STRENGTH[first] > STRENGTH[second]


def test_the_winner_of_eight_wins_three_times_and_everybody_else_loses_once() -> None:
    pairs = tournament(range(8), beats)
    assert len(pairs) == 7
    assert [better for better, _ in pairs].count(1) == 3
    assert sorted(worse for _, worse in pairs) == [0, 2, 3, 4, 5, 6, 7]
    assert all(beats(better, worse) for better, worse in pairs)
    assert pairs[-1][0] == 1


def test_the_first_round_is_of_disjoint_pairs() -> None:
    pairs = tournament([3, 1, 0, 2, 7, 5, 6, 4], beats, rounds=1)
    assert pairs == [(1, 3), (0, 2), (7, 5), (4, 6)]


def test_who_has_no_neighbour_goes_on() -> None:
    assert tournament(range(3), beats) == [(1, 0), (1, 2)]
    assert tournament([4], beats) == []
    assert tournament([], beats) == []
