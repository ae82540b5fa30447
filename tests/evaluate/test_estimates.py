from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, Mean, bootstrap, mean, wilson
from prefero.evaluate.pareto import FrontierPoint, dominated, frontier
from prefero.evaluate.ranking import ranking_accuracy
from prefero.evaluate.win_rate import BothOrders, place_bias, win_rate, win_rate_of
from prefero.feedback.judges import ByScore
from prefero.generate.sampling import Sample


def answers(texts: list[str], prompts: list[str] | None = None) -> list[Sample]:
    ids = np.ones(1, np.int64)
    prompts = prompts or [f"p{i}" for i in range(len(texts))]
    return [
        Sample(prompt, text, ids, ids, np.zeros(1, np.float32), True)
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def test_wilson_by_hand() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    interval = wilson(81 / 263, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    interval = wilson(0, 20)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0, 0.1611)


@given(st.floats(0, 1), st.integers(1, 10_000), st.floats(0.5, 0.999))
def test_wilson_stays_in_range_and_holds_the_share(share: float, count: int, confidence: float) -> None:
    interval = wilson(share, count, confidence)
    assert 0 <= interval.low <= share + 1e-12
    assert share - 1e-12 <= interval.high <= 1
    mirrored = wilson(1 - share, count, confidence)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-9)


@pytest.mark.parametrize("ties", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("decided", [0.5, 0.65, 0.95])
def test_win_rate_intervals_cover(ties: float, decided: float) -> None:
    """In 2,000 simulated evaluations of 200 prompts; ties may make the interval wide, never short."""
    rng = np.random.default_rng(0)
    true = ties / 2 + (1 - ties) * decided
    covered = 0
    for _ in range(2000):
        outcomes = np.where(rng.random(200) < ties, 0.5, rng.random(200) < decided)
        covered += true in win_rate_of(outcomes.tolist()).interval
    assert covered / 2000 > 0.93


def test_mean_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    covered = sum(1.0 in mean(rng.exponential(size=200).tolist()).interval for _ in range(2000))
    assert 0.92 < covered / 2000 < 0.965


def test_a_win_rate_counts_and_halves_ties() -> None:
    judge = ByScore(lambda prompt, text: float(len(text)))
    result = win_rate(judge, answers(["aa", "a", "a", "aaa"]), answers(["a", "a", "aa", ""]))
    assert (result.rate, result.wins, result.ties, result.losses) == (0.625, 2, 1, 1)
    swapped = win_rate(judge, answers(["a", "a", "aa", ""]), answers(["aa", "a", "a", "aaa"]))
    assert swapped.rate == 1 - result.rate
    json.dumps(result.as_dict())


def test_judges_that_are_unsure_are_taken_at_their_word() -> None:
    result = win_rate_of([0.9, 0.6, 0.5, 0.2])
    assert result.rate == pytest.approx(0.55)
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)


def test_win_rates_refuse_what_they_cannot_compare() -> None:
    judge = ByScore(lambda prompt, text: 0.0)
    with pytest.raises(PreferoError, match="got 2 and 1 samples"):
        win_rate(judge, answers(["a", "b"]), answers(["a"]))
    with pytest.raises(PreferoError, match="samples 2 answer different prompts: 'q' and 'r'"):
        win_rate(judge, answers(["a", "b"], ["p", "q"]), answers(["a", "b"], ["p", "r"]))
    with pytest.raises(PreferoError, match=r"comparison 2 was judged 1\.5"):
        win_rate_of([0.5, 1.5])
    with pytest.raises(PreferoError, match="comparison 1 was judged nan"):
        win_rate_of([float("nan")])
    with pytest.raises(PreferoError, match="at least one comparison"):
        win_rate_of([])


def test_estimates_refuse_too_little() -> None:
    with pytest.raises(PreferoError, match="at least 2 values; got 1"):
        mean([1.0])
    with pytest.raises(PreferoError, match="confidence is 95"):
        wilson(0.5, 10, 95)


def test_ranking_counts_a_tie_half() -> None:
    result = ranking_accuracy([0.3, -0.1, 0.0, 2.0])
    assert (result.accuracy, result.pairs, result.ties) == (0.625, 4, 1)
    assert result.interval == wilson(0.625, 4)
    with pytest.raises(PreferoError, match="margin of pair 2 is not a number"):
        ranking_accuracy([0.1, float("nan")])
    with pytest.raises(PreferoError, match="at least one pair"):
        ranking_accuracy([])


def point(name: str, kl: float, reward: float) -> FrontierPoint:
    def exactly(value: float) -> Mean:
        return Mean(value, Interval(value, value), 10)

    return FrontierPoint(name, exactly(kl), exactly(reward))


def test_the_frontier_leaves_out_what_is_beaten() -> None:
    points = [point("d", 3, 2), point("b", 1, 1), point("a", 0, 0), point("c", 2, 0.5), point("e", 1, 0.9)]
    assert [one.name for one in frontier(points)] == ["a", "b", "d"]
    json.dumps(points[0].as_dict())
    for compare in (frontier, dominated):
        with pytest.raises(PreferoError, match="f has a divergence of nan"):
            compare([*points, point("f", float("nan"), 5)])


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-1, 1)), max_size=12))
def test_nothing_beats_the_frontier(values: list[tuple[float, float]]) -> None:
    points = [point(str(i), kl, reward) for i, (kl, reward) in enumerate(values)]
    best = frontier(points)
    for one in points:
        assert any(b.kl.value <= one.kl.value and b.reward.value >= one.reward.value for b in best)
    assert [b.reward.value for b in best] == sorted({b.reward.value for b in best})


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-1, 1)), max_size=12, unique=True))
def test_a_point_is_on_the_frontier_or_dominated(values: list[tuple[float, float]]) -> None:
    points = [point(str(i), kl, reward) for i, (kl, reward) in enumerate(values)]
    best = {one.name for one in frontier(points)}
    beaten = {one.point.name: one.by.name for one in dominated(points)}
    assert best | set(beaten) == {one.name for one in points}
    assert not best & set(beaten)


def test_domination_is_sure_only_where_both_intervals_lie_apart() -> None:
    def at(name: str, kl: float, reward: float, half: float) -> FrontierPoint:
        return FrontierPoint(
            name,
            Mean(kl, Interval(kl - half, kl + half), 9),
            Mean(reward, Interval(reward - half, reward + half), 9),
        )

    better, worse = at("a", 1, 2, 0.2), at("b", 2, 1, 0.2)
    (sure,) = dominated([better, worse])
    assert (sure.point.name, sure.by.name, sure.surely) == ("b", "a", True)
    (unsure,) = dominated([better, at("b", 2, 1, 0.9)])
    assert not unsure.surely
    # a near rival with a higher reward does not hide one that surely dominates
    (found,) = dominated([better, worse, at("c", 1.9, 3, 0.2)])[-1:]
    assert found.surely


def test_samples_of_one_prompt_are_one_piece_of_evidence() -> None:
    judge = ByScore(lambda prompt, text: float(len(text)))
    prompts = ["p", "p", "p", "q"]
    result = win_rate(judge, answers(["aa"] * 4, prompts), answers(["a", "a", "a", "aaa"], prompts))
    assert result.rate == 0.5  # not 3/4: each prompt counts once
    assert result.interval == wilson(0.5, 2)
    assert (result.wins, result.losses) == (3, 1)
    assert win_rate_of([1, 1, 0], prompts=["a", "a", "b"]).rate == 0.5


def test_both_orders_cancel_a_liking_for_a_place() -> None:
    def first(prompt: object, one: str, other: str) -> float:
        return 1.0

    def slanted(prompt: object, one: str, other: str) -> float:
        return 0.3 + 0.5 * float(len(one) > len(other))

    assert BothOrders(first)("p", "a", "b") == 0.5
    assert BothOrders(slanted)("p", "aa", "b") == pytest.approx(0.75)
    assert BothOrders(slanted)("p", "aa", "b") + BothOrders(slanted)("p", "b", "aa") == pytest.approx(1)
    assert place_bias(first, [("p", "a", "b")]) == 0.5
    assert place_bias(slanted, [("p", "aa", "b")]) == pytest.approx(0.05)
    fair = ByScore(lambda prompt, text: float(len(text)))
    assert place_bias(fair, [("p", "aa", "b"), ("p", "a", "b")]) == 0


def test_bootstrap_intervals_cover_and_repeat() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = rng.exponential(size=120)
        interval = bootstrap(lambda drawn, v=values: float(v[drawn].mean()), 120, resamples=200, seed=seed)
        covered += 1.0 in interval
    assert 0.88 < covered / 200 < 0.98
    again = [bootstrap(lambda drawn: float(drawn.sum()), 50, resamples=20, seed=3) for _ in range(2)]
    assert again[0] == again[1]
