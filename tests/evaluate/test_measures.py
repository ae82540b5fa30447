from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.evaluate.calibration import calibration, pair_calibration
from prefero.evaluate.diversity import (
    bleu,
    compression_ratio,
    distinct,
    expectation_adjusted_distinct,
    jaccard,
    mean_distance,
    ngram_entropy,
    self_bleu,
)
from prefero.evaluate.pareto import dominates, hypervolume, non_dominated, sparsity
from prefero.evaluate.programs import all_pass_at_k, pass_at_k, pass_rate

shares = st.floats(0, 1)


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


# Calibration


def test_a_reliability_curve_by_hand() -> None:
    found = calibration([0.1, 0.9, 0.9, 0.5], [0, 1, 0, 0.5], bins=5)
    assert [one.count for one in found.curve] == [1, 1, 2]
    assert found.expected_error == pytest.approx((0.1 + 0 + 2 * 0.4) / 4)
    assert found.largest_error == pytest.approx(0.4)
    assert found.brier == pytest.approx((0.01 + 0.01 + 0.81 + 0) / 4)
    assert found.log_loss == pytest.approx(-(2 * math.log(0.9) + math.log(0.1) + math.log(0.5)) / 4)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=40), st.integers(1, 20))
def test_bins_hold_every_prediction_once(values: list[tuple[float, float]], bins: int) -> None:
    probabilities, outcomes = zip(*values, strict=True)
    for binning in ("width", "mass"):
        found = calibration(probabilities, outcomes, bins=bins, binning=binning)
        assert sum(one.count for one in found.curve) == len(values)
        assert len(found.curve) <= bins
        assert all(one.low - 1e-12 <= one.predicted <= one.high + 1e-12 for one in found.curve)
        assert 0 <= found.expected_error <= found.largest_error + 1e-12 <= 1 + 1e-12
        # Jensen: bins can only hide errors
        assert found.expected_error <= math.sqrt(found.brier) + 1e-12


def test_bins_of_equal_mass_are_of_equal_mass() -> None:
    rng = np.random.default_rng(0)
    skewed = (rng.random(1000) ** 4).tolist()
    found = calibration(skewed, [0.0] * 1000, bins=10, binning="mass")
    assert [one.count for one in found.curve] == [100] * 10
    assert calibration(skewed, [0.0] * 1000, bins=10).curve[0].count > 400


def test_equal_probabilities_are_not_torn_apart() -> None:
    found = calibration([0.7] * 10 + [0.2] * 6, [1.0] * 7 + [0.0] * 9, bins=4, binning="mass")
    assert [one.count for one in found.curve] == [6, 10]


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(20_000)
    came = (rng.random(20_000) < chance).astype(float)
    honest = calibration(chance.tolist(), came.tolist())
    sure = calibration((chance > 0.5).astype(float).tolist(), came.tolist())
    assert honest.expected_error < 0.015 < 0.2 < sure.expected_error
    assert honest.brier < sure.brier
    assert sure.log_loss == math.inf


def test_pairs_are_calibrated_whichever_side_stands_first() -> None:
    """Chosen always wins: the probabilities of the margins themselves would all lie too low."""
    rng = np.random.default_rng(0)
    gap = rng.normal(0, 2, 20_000)
    wins = rng.random(20_000) < 1 / (1 + np.exp(-gap))
    margins = np.where(wins, gap, -gap)
    assert pair_calibration(margins.tolist()).expected_error < 0.015
    assert pair_calibration((3 * margins).tolist()).expected_error > 0.05
    assert pair_calibration([0.0]).expected_error == 0
    assert pair_calibration([-1000.0, 1000.0]).expected_error == 0.5


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(PreferoError, match=r"probability 2 is 1\.5"):
        calibration([0.5, 1.5], [1, 0])
    with pytest.raises(PreferoError, match="outcome 1 is nan"):
        calibration([0.5], [float("nan")])
    with pytest.raises(PreferoError, match="got 2 probabilities and 1 outcomes"):
        calibration([0.5, 0.5], [1])


# pass@k


@given(st.integers(1, 30), st.data())
def test_pass_at_k_is_the_ratio_of_binomials(attempts: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, attempts)), data.draw(st.integers(1, attempts))
    total = math.comb(attempts, k)
    failing = Fraction(math.comb(attempts - correct, k), total)
    assert pass_at_k(attempts, correct, k) == pytest.approx(float(1 - failing), rel=1e-12, abs=1e-15)
    passing = Fraction(math.comb(correct, k), total)
    assert all_pass_at_k(attempts, correct, k) == pytest.approx(float(passing), rel=1e-12)


def test_pass_at_k_is_unbiased_and_the_plug_in_is_not() -> None:
    rate, attempts, k = 0.15, 8, 4
    chance = [math.comb(attempts, c) * rate**c * (1 - rate) ** (attempts - c) for c in range(attempts + 1)]
    mean = sum(p * pass_at_k(attempts, c, k) for c, p in enumerate(chance))
    plug_in = sum(p * (1 - (1 - c / attempts) ** k) for c, p in enumerate(chance))
    assert mean == pytest.approx(1 - (1 - rate) ** k, abs=1e-12)
    assert abs(plug_in - (1 - (1 - rate) ** k)) > 0.02


def test_many_attempts_neither_overflow_nor_round_to_nothing() -> None:
    assert pass_at_k(1_000_000, 1, 100) == pytest.approx(1e-4, rel=1e-9)
    assert pass_at_k(10_000, 5_000, 100) == pytest.approx(1, abs=1e-12)
    with pytest.raises(PreferoError, match="k is 11"):
        pass_at_k(10, 3, 11)
    with pytest.raises(PreferoError, match="11 of 10"):
        pass_at_k(10, 11, 1)
    assert pass_rate([[True, False], [False, False]], 1).value == 0.25


# Hypervolume


def by_inclusion_and_exclusion(points: list[tuple[float, ...]]) -> float:
    """Above the origin, over all subsets."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            total -= (-1) ** size * math.prod(min(values) for values in zip(*some, strict=True))
    return total


fronts = st.integers(1, 5).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * d), min_size=1, max_size=7)
)


@given(fronts)
def test_the_hypervolume_is_the_volume_of_the_union(points: list[tuple[float, ...]]) -> None:
    origin = [0.0] * len(points[0])
    volume = hypervolume(points, origin)
    assert volume == pytest.approx(by_inclusion_and_exclusion(points))
    front = [points[place] for place in non_dominated(points)]
    assert hypervolume(front, origin) == pytest.approx(volume)
    turned = [point[::-1] for point in reversed(points)]
    assert hypervolume(turned, origin) == pytest.approx(volume)
    moved = [tuple(value + 3 for value in point) for point in points]
    assert hypervolume(moved, [3.0] * len(origin)) == pytest.approx(volume)


@given(fronts)
def test_a_front_holds_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    places = non_dominated(points)
    front = [points[place] for place in places]
    assert places == sorted(places)
    assert len(set(front)) == len(front)
    assert not any(dominates(one, other) for one in front for other in front)
    assert all(point in front or any(dominates(one, point) for one in front) for point in points)


def test_points_below_the_reference_add_nothing() -> None:
    assert hypervolume([[2.0, 2.0], [9.0, 1.0]], [1, 1]) == 1
    assert hypervolume([], [0, 0]) == 0
    assert hypervolume([[0.0, 5.0]], [0, 0]) == 0
    with pytest.raises(PreferoError, match="point 1 has 3 objectives, the reference point 2"):
        hypervolume([[1, 2, 3]], [0, 0])
    with pytest.raises(PreferoError, match="point 2 has 1 objectives, the first 2"):
        non_dominated([[1, 2], [1]])


def test_sparsity_is_of_neighbours() -> None:
    assert sparsity([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0]]) == pytest.approx((1 + 4 + 1 + 4) / 2)
    assert sparsity([[1.0, 2.0]]) == 0


# Diversity


def test_distinct_shares_by_hand() -> None:
    texts = words("a b a b", "a b c")
    assert distinct(texts, 1) == 3 / 7
    assert distinct(texts, 2) == 3 / 5  # over all texts together: no bigram spans two
    assert distinct(texts, 9) == 0
    assert ngram_entropy(words("a a b b"), 1) == pytest.approx(math.log(2))


def test_adjusting_takes_the_fall_with_length_away() -> None:
    """Evenly drawn tokens: distinct-1 falls with length, the adjusted one stays at 1."""
    rng = np.random.default_rng(0)
    short, long = (rng.integers(0, 500, (1, count)).tolist() for count in (200, 5000))
    assert distinct(long, 1) < distinct(short, 1) / 4
    for texts in (short, long):
        assert expectation_adjusted_distinct(texts, 500) == pytest.approx(1, abs=0.05)
    assert expectation_adjusted_distinct([[1, 1, 1]], 1) == 1


def test_self_bleu_by_hand_and_at_its_ends() -> None:
    """The values are nltk's, with its smoothing method 1, on the same texts."""
    texts = words("a b c d e f", "a b c x y z d", "q b c d", "z")
    by_text = [bleu(text, [other for other in texts if other is not text]) for text in texts]
    assert by_text == pytest.approx(
        [0.24187711037036175, 0.18575057999133598, 0.24117803988461298, 0.008853531856477262]
    )
    assert self_bleu(texts[:3]) == pytest.approx(0.21957573421641796)
    assert self_bleu(words("a b c d", "a b c d")) == 1
    assert self_bleu(words("a b c d", "e f g h")) == 0
    with pytest.raises(PreferoError, match="at least two texts"):
        self_bleu(words("a"))


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), min_size=2, max_size=5))
def test_diversity_is_of_sets(texts: list[list[str]]) -> None:
    turned = texts[::-1]
    assert 0 <= self_bleu(texts) <= 1 + 1e-12
    assert self_bleu(turned) == pytest.approx(self_bleu(texts))
    assert mean_distance(turned) == pytest.approx(mean_distance(texts))
    assert jaccard(texts[0], texts[0]) == 1
    for n in (1, 2):
        assert 0 <= distinct(texts, n) <= 1
        doubled = distinct([*texts, *texts], n)
        assert doubled == pytest.approx(distinct(texts, n) / 2)


def test_repetition_compresses() -> None:
    assert compression_ratio(["the same words again"] * 20) > 5
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(33, 126, 20))) for _ in range(20)]
    assert compression_ratio(noise) < 1.5
