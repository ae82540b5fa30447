"""Pairs with a bias in length: the share that was asked for, and labels left alone."""

from __future__ import annotations

import pytest

from prefero.demo.reviews import REVIEWS
from prefero.errors import PreferoError
from prefero_lab.worlds.length_bias import LongerChosen, surplus


def rows(longer: int, shorter: int, alike: int) -> list[dict[str, str]]:
    lengths = [(4, 2)] * longer + [(2, 4)] * shorter + [(3, 3)] * alike
    texts = [("word " * chosen, f"other {i} " * rejected) for i, (chosen, rejected) in enumerate(lengths)]
    return [
        {"prompt": "p", "chosen": chosen, "rejected": " ".join(rejected.split()[: lengths[i][1]])}
        for i, (chosen, rejected) in enumerate(texts)
    ]


@pytest.mark.parametrize(("longer", "shorter"), [(40, 40), (80, 10)])
def test_the_chosen_response_is_longer_in_the_share(longer, shorter):
    given = rows(longer, shorter, 20)
    kept = LongerChosen(0.75)(REVIEWS, given, seed=0)
    surpluses = [surplus(row) for row in kept]
    above, below = sum(one > 0 for one in surpluses), sum(one < 0 for one in surpluses)
    assert above / (above + below) == pytest.approx(0.75, abs=0.02)
    assert sum(one == 0 for one in surpluses) == 20 and (above == longer or below == shorter)


def test_labels_and_order_stay_and_follow_from_the_seed():
    given = rows(40, 40, 20)
    kept, again, other = (LongerChosen(0.75)(REVIEWS, given, seed) for seed in (0, 0, 1))
    assert kept == again != other
    assert [given.index(row) for row in kept] == sorted(given.index(row) for row in kept)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(PreferoError, match="between 0 and 1"):
        LongerChosen(share)
