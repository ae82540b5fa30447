"""The rule: intervals over seeds, what holds and what does not, and what is too small to tell."""

from __future__ import annotations

import math
from statistics import stdev

import pytest
import torch

from prefero.errors import PreferoError
from prefero_lab.papers.verdicts import (
    FAILS,
    HOLDS,
    UNCLEAR,
    Difference,
    difference,
    judged,
    summary,
    weakest,
)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_the_interval_has_the_width_of_students_t(freedom, expected):
    seeds = [float(seed) for seed in range(freedom + 1)]
    found = difference([[value] for value in seeds], [[0.0]] * len(seeds))
    error = stdev(seeds) / math.sqrt(len(seeds))
    assert found.high - found.value == pytest.approx(expected * error, rel=1e-4)


def test_the_interval_is_over_seeds_not_over_all_prompts():
    """An interval over the pooled prompts would be ten times narrower, and the verdict another."""
    ours = [[0.1] * 1000, [0.3] * 1000, [0.8] * 1000]
    found = difference(ours, [[0.0] * 1000] * 3)
    assert found.value == pytest.approx(0.4) and found.seeds == pytest.approx((0.1, 0.3, 0.8))
    half = 4.3027 * 0.36056 / math.sqrt(3)
    assert found.high - found.value == pytest.approx(half, abs=1e-3)
    assert judged(found) == UNCLEAR


def test_seeds_that_agree_by_luck_do_not_hide_the_spread_over_prompts():
    noise = [3.0, -3.0] * 8
    found = difference([[0.2 + one for one in noise]] * 3, [[0.0] * 16] * 3)
    within = math.sqrt(9 * 16 / 15 / 16 / 3)
    assert found.seeds == pytest.approx((0.2, 0.2, 0.2))
    assert found.high - found.value == pytest.approx(4.3027 * within, rel=1e-3)
    assert judged(found) == UNCLEAR


def test_what_prompts_have_in_common_drops_out():
    hard = [10.0, -10.0, 3.0, -3.0]
    found = difference([[one + 0.1 for one in hard]] * 3, [hard] * 3)
    assert found.low == pytest.approx(0.1) and judged(found) == HOLDS


def test_swapping_the_arms_turns_the_verdict():
    ours, theirs = [[1.0, 1.2], [0.9, 1.1], [1.1, 1.2]], [[0.0, 0.1], [0.1, 0.2], [0.0, 0.3]]
    assert judged(difference(ours, theirs)) == HOLDS
    assert judged(difference(theirs, ours)) == FAILS
    assert judged(difference(ours, theirs, lower=True)) == FAILS
    assert judged(difference(theirs, ours, lower=True)) == HOLDS


@pytest.mark.parametrize(
    ("low", "high", "by", "expected"),
    [
        (0.1, 0.3, 0.0, HOLDS),
        (-0.1, 0.3, 0.0, UNCLEAR),
        (-0.3, -0.1, 0.0, FAILS),
        (0.1, 0.3, 0.2, HOLDS),
        (0.1, 0.15, 0.2, FAILS),
        (-0.1, 0.15, 0.2, FAILS),
        (-0.1, 0.3, 0.2, UNCLEAR),
        (-0.05, 0.3, -0.1, HOLDS),
        (-0.15, 0.3, -0.1, UNCLEAR),
        (-0.3, -0.15, -0.1, FAILS),
        (-0.08, -0.02, -0.1, HOLDS),
    ],
)
def test_the_rule(low, high, by, expected):
    assert judged(Difference((low + high) / 2, low, high, ()), by) == expected


def test_one_seed_tells_nothing_however_large_the_difference():
    found = difference([[100.0] * 50], [[0.0] * 50])
    assert found.value == 100 and judged(found) == UNCLEAR
    assert math.isnan(summary([[1.0, 3.0]]).spread) and summary([[1.0, 3.0]]).mean == 2


def test_what_is_not_finite_tells_nothing():
    assert judged(difference([[math.nan], [1.0]], [[0.0], [0.0]])) == UNCLEAR
    assert judged(difference([[math.inf], [1.0]], [[0.0], [0.0]])) == UNCLEAR


def test_arms_of_other_prompts_are_refused():
    with pytest.raises(PreferoError, match="prompt by prompt"):
        difference([[1.0, 2.0]], [[1.0]])
    with pytest.raises(PreferoError, match="seed by seed"):
        difference([[1.0], [2.0]], [[1.0]])


def test_a_conjunction_is_as_strong_as_its_weakest_part():
    assert weakest([HOLDS, HOLDS]) == HOLDS
    assert weakest([HOLDS, UNCLEAR]) == UNCLEAR
    assert weakest([HOLDS, UNCLEAR, FAILS]) == FAILS


def test_nothing_is_found_where_there_is_nothing_more_often_than_promised():
    """Over 400 claims about no difference, about 2.5 % hold and 2.5 % do not: never many more."""
    noise = torch.Generator().manual_seed(0)
    verdicts = []
    for _ in range(400):
        shift = 0.1 * torch.randn(3, 1, generator=noise)
        ours = torch.randn(3, 30, generator=noise) * 0.3 + shift
        verdicts.append(judged(difference(ours.tolist(), [[0.0] * 30] * 3)))
    assert verdicts.count(HOLDS) < 0.05 * 400 and verdicts.count(FAILS) < 0.05 * 400
