"""What is selected for training, sampling and annotation."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from prefero.errors import PreferoError
from prefero.feedback.selection import (
    clipped_margin,
    fused,
    highest,
    nested_subsets,
    region,
    replay_counts,
    representative,
    to_annotate,
    to_annotate_exactly,
    to_regenerate,
    upper_bound,
)

MARGINS = st.lists(st.floats(-5, 8), min_size=1, max_size=12).map(lambda m: torch.tensor(m).double())


def test_equals_are_taken_in_their_order() -> None:
    assert highest(torch.tensor([1.0, 2.0, 2.0, 0.0]), 3) == [1, 2, 0]
    with pytest.raises(PreferoError, match="5 of 4"):
        highest(torch.zeros(4), 5)


@given(MARGINS)
def test_an_undecided_source_leaves_the_others_word(margin: Tensor) -> None:
    p = clipped_margin(margin, -2.0, 6.0)
    torch.testing.assert_close(fused(p, torch.full_like(p, 0.5)), p)
    torch.testing.assert_close(fused(p, 1 - p), torch.full_like(p, 0.5))


@given(MARGINS)
def test_flipped_labels_give_the_opposite_probability(margin: Tensor) -> None:
    other = margin.flip(0)
    right = fused(clipped_margin(margin, -3.0, 3.0), clipped_margin(other, -3.0, 3.0))
    wrong = fused(clipped_margin(-margin, -3.0, 3.0), clipped_margin(-other, -3.0, 3.0))
    torch.testing.assert_close(right, 1 - wrong)


def test_a_certain_source_has_its_way_unless_the_other_is_as_certain() -> None:
    p, q = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.9, 0.1, 1.0, 1.0])
    assert fused(p, q).tolist() == [0.0, 1.0, 0.5, 1.0]


def test_margins_are_clipped_where_few_are_left() -> None:
    assert upper_bound(torch.arange(100) / 100, few=30) == pytest.approx(0.71)
    # a thin end: fewer margins from 1 on than it is to the end, though more than enough from 0 on
    thin = torch.cat([torch.zeros(99), torch.tensor([1.0, 90.0])])
    assert upper_bound(thin, few=1) == 1.0
    assert upper_bound(torch.tensor([0.0, 0.0, 0.0, 0.5]), few=1) == 0.5


@pytest.mark.parametrize(
    "margins",
    [
        torch.linspace(-1, 3, 29),  # fewer than thirty: few are left from the smallest on
        torch.linspace(0, 1000, 200),  # so wide a scale that any count is fewer than the distance
        torch.ones(50),
    ],
)
def test_a_bound_that_would_make_every_pair_certain_is_refused(margins: Tensor) -> None:
    with pytest.raises(
        PreferoError, match=r"no bound above the smallest .* every pair would count as certain"
    ):
        upper_bound(margins)


def test_bounds_that_cross_are_refused() -> None:
    """A maximum below the minimum clips every margin to the maximum: all would be certain."""
    for low, high in ((-2.0, -2.0), (-2.0, -3.0), (0.0, float("nan"))):
        with pytest.raises(PreferoError, match="clipped from"):
            clipped_margin(torch.tensor([-4.0, 0.0, 4.0]), low, high)


def test_what_is_not_a_number_is_neither_best_nor_worst() -> None:
    scores = torch.tensor([0.3, float("nan"), 0.9])
    for select in (
        lambda: highest(scores, 1),
        lambda: region(scores, 1, "bottom"),
        lambda: clipped_margin(scores, 0.0, 1.0),
        lambda: upper_bound(scores, few=1),
        lambda: to_regenerate(scores.tolist(), 0.5),
    ):
        with pytest.raises(PreferoError, match="score 2 of 3 is not a number"):
            select()
    with pytest.raises(PreferoError, match="a similarity is not a number"):
        to_annotate(torch.full((3, 3), float("nan")), 2)
    with pytest.raises(PreferoError, match="4 of 3 responses"):
        to_annotate(torch.eye(3), 4)


ALIKE = torch.tensor(
    [
        [1, 0.8, 0.3, -0.1, -0.4],
        [0.8, 1, 0.3, 0.2, -0.9],
        [0.3, 0.3, 1, -0.9, -0.1],
        [-0.1, 0.2, -0.9, 1, -0.5],
        [-0.4, -0.9, -0.1, -0.5, 1],
    ],
    dtype=torch.float64,
)


def test_three_are_found_with_the_divisors_of_three() -> None:
    """By hand, step by step. With those of as many as there are, 4 would come second and 1 third."""
    first = [representative(ALIKE, [one], 0.5, count=3) for one in range(5)]
    assert first == pytest.approx([0.05, 1 / 30, -1 / 30, -0.108333, -0.158333], abs=1e-6)
    second = [representative(ALIKE, [0, one], 0.5, count=3) for one in range(1, 5)]
    assert second == pytest.approx([-0.05, -1 / 30, -0.041667, -0.041667], abs=1e-6)
    third = [representative(ALIKE, [0, 2, one], 0.5, count=3) for one in (1, 3, 4)]
    assert third == pytest.approx([-0.183333, 0.025, -0.108333], abs=1e-6)
    assert to_annotate(ALIKE, 3, diversity=0.5) == [0, 2, 3]
    assert representative(ALIKE, [0, 2, 3], 0.5) == pytest.approx(0.025)


@given(MARGINS)
def test_clear_pairs_do_not_depend_on_which_is_called_chosen(gap: Tensor) -> None:
    count = len(gap) // 2
    assert region(gap, count) == region(-gap, count)
    clear, unclear = region(gap, count), region(gap, len(gap) - count, "middle")
    assert min(gap[clear].abs(), default=torch.tensor(9.0)) >= max(
        gap[unclear].abs(), default=torch.tensor(0.0)
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_low_rewards_are_regenerated(share: float) -> None:
    rewards = [0.4, -1.0, 0.1, 2.0, -0.3, 0.4]
    again, kept = to_regenerate(rewards, share)
    assert len(again) == round(share * len(rewards))
    assert sorted(again + kept) == list(range(6))
    assert not again or not kept or max(rewards[i] for i in again) <= min(rewards[i] for i in kept)


def test_the_mixture_has_the_share_that_was_asked_for() -> None:
    assert replay_counts(1000, 700, 0.5) == (500, 500)
    assert replay_counts(1000, 200, 0.5) == (200, 200)
    assert replay_counts(1000, 700, 0.0) == (700, 0)
    assert replay_counts(1000, 900, 0.7) == (300, 700)
    with pytest.raises(PreferoError, match="share is 1"):
        replay_counts(10, 10, 1.0)


def similarity(count: int, seed: int = 0) -> Tensor:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).double()
    points = points / points.norm(dim=1, keepdim=True)
    return points @ points.T


def test_without_diversity_the_most_typical_are_annotated() -> None:
    alike = similarity(8)
    typical = (alike.sum(1) - 1).argsort(descending=True)[:3].tolist()
    assert to_annotate(alike, 3, diversity=0.0) == typical


def test_what_stands_on_the_diagonal_does_not_matter() -> None:
    alike = similarity(7)
    assert to_annotate(alike, 3) == to_annotate(alike + 5 * torch.eye(7), 3)


def test_twins_are_not_both_annotated() -> None:
    alike = similarity(6)
    order = [0, 0, 1, 2, 3, 4, 5]
    doubled = alike[order][:, order]
    assert set(to_annotate(doubled, 2, diversity=50.0)) != {0, 1}


@pytest.mark.parametrize("seed", range(4))
def test_the_best_set_is_no_worse_than_the_one_found_greedily(seed: int) -> None:
    alike = similarity(7, seed)
    greedy, best = to_annotate(alike, 3), to_annotate_exactly(alike, 3)
    assert representative(alike, best) >= representative(alike, greedy) - 1e-12
    assert sorted(to_annotate(alike, 7)) == list(range(7))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    shuffled = to_annotate(alike[order][:, order], 3)
    assert [int(order[place]) for place in shuffled] == greedy


def test_subsets_are_nested_and_keep_the_shares_of_every_source() -> None:
    tags = ["chat"] * 60 + ["code"] * 25 + ["qa"] * 15
    shares = [0.2, 0.4, 0.6, 0.8, 1.0]
    subsets = nested_subsets(tags, shares, seed=3)
    for share, subset, larger in zip(shares, subsets, [*subsets[1:], subsets[-1]], strict=True):
        assert set(subset) <= set(larger)
        assert [sum(tags[i] == tag for i in subset) for tag in ("chat", "code", "qa")] == [
            round(share * count) for count in (60, 25, 15)
        ]
    assert subsets[-1] == list(range(100))
    assert subsets == nested_subsets(tags, shares, seed=3)
    assert subsets[0] != nested_subsets(tags, shares, seed=4)[0]
    with pytest.raises(PreferoError, match="a share is 1"):
        nested_subsets(tags, [1.2])


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 5))
def test_subsets_have_their_exact_sizes_and_tags_their_shares(tags: list[int], seed: int) -> None:
    shares = [0.2, 0.4, 0.6, 0.8, 1.0]
    subsets = nested_subsets(tags, shares, seed=seed)
    assert [len(subset) for subset in subsets] == [round(share * len(tags)) for share in shares]
    for share, subset in zip(shares, subsets, strict=True):
        for tag in set(tags):
            assert abs(sum(tags[i] == tag for i in subset) - share * tags.count(tag)) <= 1.5


def test_tags_of_one_example_each_are_in_some_subset() -> None:
    """A share of one example rounds to nothing or all of it; the whole has its share all the same."""
    subsets = nested_subsets([str(place) for place in range(20)], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert [len(subset) for subset in subsets] == [4, 8, 12, 16, 20]
    assert all(set(small) < set(large) for small, large in itertools.pairwise(subsets))
