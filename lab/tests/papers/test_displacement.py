"""Mixtures of pairs, and the halves that a score tells."""

from __future__ import annotations

import random

import pytest

from prefero_lab.papers.experiments.displacement import kept, mixed
from prefero_lab.papers.theory.ches import AWAY, UNEMBEDDING, descended
from prefero_lab.worlds.safety import kind, write_help, write_refusal

ROWS = [
    {
        "prompt": f"question {i}",
        "chosen": write(random.Random(i), "well"),
        "rejected": write(random.Random(i), write.__name__.removeprefix("write_")),
        "chosen_score": 1.0,
    }
    for i, write in enumerate([write_refusal, write_help] * 100)
]


def test_a_share_of_the_pairs_is_opposed_and_says_so():
    rows = mixed(ROWS, 0.4, seed=0)
    assert rows == mixed(ROWS, 0.4, seed=0) != mixed(ROWS, 0.4, seed=1)
    assert 50 < sum(row["opposed"] for row in rows) < 110
    for row, old in zip(rows, ROWS, strict=True):
        assert row["chosen"] == old["chosen"]
        if row["opposed"]:
            assert {kind(row["chosen"]), kind(row["rejected"])} == {"refusal", "help"}
        else:
            assert row["rejected"] == old["rejected"]


def test_the_low_half_has_the_lowest_scores_in_the_order_of_the_data():
    rows = [{"ches": score} for score in (3.0, -2.0, 5.0, -7.0)]
    assert [row["ches"] for row in kept(rows, "low", 0)] == [-2.0, -7.0]
    assert [row["ches"] for row in kept(rows, "high", 0)] == [3.0, 5.0]
    assert len(kept(rows, "random", 0)) == 2 and kept(rows, "all", 0) == rows


@pytest.mark.parametrize("alike", [True, False])
def test_the_chosen_token_vanishes_where_the_rejected_one_is_like_it(alike):
    """Would hold of neither if the state were not trained, and of both if unembeddings were mixed up."""
    unembedding = UNEMBEDDING if alike else (UNEMBEDDING[0], AWAY, *UNEMBEDDING[2:])
    probabilities, _ = descended(unembedding, 1000)
    assert (probabilities[0].item() < 0.05) is alike is (probabilities[2].item() > 0.9)
