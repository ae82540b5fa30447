"""Which images, clips and prompts meet, and which pairs come first."""

from __future__ import annotations

import itertools
import math

import pytest

from prefero.errors import PreferoError
from prefero.feedback.curricula import clear_pairs, gap_thresholds, growing_stages, rank_batches
from prefero.feedback.media_pairs import (
    bin_shares,
    clear_pair,
    dominance,
    edited_pair,
    overall_scores,
    pair_share,
    prompt_pairs,
    rarity_weights,
)


def test_the_higher_reward_wins_and_scores_that_disagree_are_a_tie() -> None:
    assert dominance([2.0], [1.0]) == 1 and dominance([1.0], [2.0]) == -1 and dominance([1.0], [1.0]) == 0
    assert dominance([1.0, 3.0], [1.0, 2.0]) == 1
    assert dominance([2.0, 1.0], [1.0, 2.0]) == 0


def test_the_threshold_is_on_the_gap_of_probabilities_not_of_scores() -> None:
    apart = 2 * math.atanh(0.3)
    assert apart == pytest.approx(0.619, abs=1e-3)
    assert not clear_pair([1.0, 1.0 + apart - 1e-6], 0.3)[2]
    pair, gap, clear = clear_pair([0.2, 1.0, 0.5, 1.0 + apart + 1.0], 0.3)
    assert pair == (3, 0) and clear and gap > 0.3
    assert clear_pair([1e4, -1e4])[1] == 1.0


def test_an_edit_is_not_believed_to_be_better() -> None:
    assert edited_pair(0.5, 0.9) == "edited"
    assert edited_pair(0.9, 0.5) == "original"
    assert edited_pair(0.5, 0.5) == "drop" and edited_pair(0.5, 0.6, margin=0.2) == "drop"


CANDIDATES = [
    {"motion": 3.0, "fit": 3.0},
    {"motion": 5.0, "fit": 0.5},
    {"motion": 2.0, "fit": 2.0},
    {"motion": 1.0, "fit": 1.0},
]
WEIGHTS = {"motion": 1.0, "fit": 1.0}


def test_only_what_is_above_every_minimum_is_chosen_and_minima_do_not_hold_for_rejected() -> None:
    assert prompt_pairs(CANDIDATES, WEIGHTS, {"fit": 1.0}, margin=1.0) == [(0, 2), (0, 3)]
    both = prompt_pairs(CANDIDATES, WEIGHTS, {"fit": 0.0}, margin=1.0)
    assert both == [(0, 2), (0, 3), (1, 2), (1, 3)], "the second best never meets the best as chosen"


def test_a_larger_margin_never_adds_pairs() -> None:
    found = [set(prompt_pairs(CANDIDATES, WEIGHTS, {}, margin=margin)) for margin in (0.0, 1.0, 2.0, 5.0)]
    assert found == sorted(found, key=len, reverse=True)
    assert all(later <= earlier for earlier, later in itertools.pairwise(found))


def test_a_missing_score_is_named() -> None:
    with pytest.raises(PreferoError, match="candidate 1 has no score 'fit'; it has motion"):
        overall_scores([{"motion": 1.0, "fit": 1.0}, {"motion": 1.0}], WEIGHTS)


def test_a_score_on_the_edge_of_a_bin_is_in_the_bin_above() -> None:
    assert bin_shares([0.15, 0.15, 0.149, 0.16], 0.05) == [0.75, 0.75, 0.25, 0.75]
    with pytest.raises(PreferoError, match="width of bins"):
        bin_shares([1.0], 0.0)


def test_rare_pairs_weigh_most_and_common_ones_one() -> None:
    shares = [(0.5, 0.5), (0.5, 0.1), (0.1, 0.1)]
    weights = rarity_weights(shares, 0.5)
    assert weights[0] == 1.0 and weights == sorted(weights)
    assert rarity_weights(shares, 0.5, alpha=0.0) == [1.0, 1.0, 1.0]
    assert pair_share(0.4, 0.1) == pytest.approx(0.2)


SCORES = [[0.1, 0.9, 0.5], [0.2, 0.25, 0.8]]


def test_stages_grow_from_the_clearest_pairs_to_all() -> None:
    stages = growing_stages(SCORES, least=0.1, groups=4)
    assert len(stages) == 3
    assert stages[-1] == clear_pairs(SCORES, 0.1) == [(0, 1, 0), (0, 2, 0), (0, 1, 2), (1, 2, 0), (1, 2, 1)]
    for earlier, later in itertools.pairwise(stages):
        assert set(earlier) <= set(later)
        new = set(later) - set(earlier)
        gap = lambda pair: SCORES[pair[0]][pair[1]] - SCORES[pair[0]][pair[2]]  # noqa: E731
        assert all(gap(old) >= gap(one) for old in earlier for one in new)


def test_equal_scores_make_no_pair_and_no_pairs_no_thresholds() -> None:
    assert clear_pairs([[0.5, 0.5]]) == []
    assert growing_stages([[0.5, 0.5]], groups=3) == []
    with pytest.raises(PreferoError, match="at least two thresholds"):
        gap_thresholds([1.0], 1)


def test_batches_by_rank_share_all_pairs_between_them() -> None:
    scores = [0.3, 0.9, 0.1, 0.5, 0.7, 0.2, 0.4]
    batches = rank_batches(scores, 4)
    together = [pair for batch in batches for pair in batch]
    assert len(together) == len(set(together)) == 21
    assert all(scores[better] > scores[worse] for better, worse in together)
    # M − 1 = 6, L = 4: differences 5 and 6, then 4, then 2 and 3, then 1
    assert [len(batch) for batch in batches] == [3, 3, 9, 6]
    assert rank_batches(scores, 1) == [sorted(together)]
    assert rank_batches([1.0], 2) == [[], []]
