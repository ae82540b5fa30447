from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefero.errors import PreferoError
from prefero.evaluate.frontier import FrontierPoint, frontier
from prefero.evaluate.intervals import Interval, Mean, mean, wilson
from prefero.evaluate.ranking import ranking_accuracy
from prefero.evaluate.win_rate import win_rate, win_rate_of
from prefero.feedback.judges import ByScore
from prefero.feedback.sampling import Sample


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


def test_ranking_counts_a_tie_as_wrong() -> None:
    result = ranking_accuracy([0.3, -0.1, 0.0, 2.0])
    assert (result.accuracy, result.pairs, result.ties) == (0.5, 4, 1)
    assert result.interval == wilson(0.5, 4)
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


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-1, 1)), max_size=12))
def test_nothing_beats_the_frontier(values: list[tuple[float, float]]) -> None:
    points = [point(str(i), kl, reward) for i, (kl, reward) in enumerate(values)]
    best = frontier(points)
    for one in points:
        assert any(b.kl.value <= one.kl.value and b.reward.value >= one.reward.value for b in best)
    assert [b.reward.value for b in best] == sorted({b.reward.value for b in best})
