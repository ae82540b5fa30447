from __future__ import annotations

import pytest
import torch

from prefero.errors import PreferoError
from prefero.theory.rewards import PreferenceToReward

CANDIDATES = torch.tensor([[0.0, 1.0, -1.0, 0.5], [0.0, 1.0, 1.0, -0.5], [0.3, -0.2, 0.8, 0.8]]).double()


def noiseless(true: int):
    def beats(response: int, baseline: int) -> float:
        return float(torch.sigmoid(CANDIDATES[true, response] - CANDIDATES[true, baseline]))

    return beats


def test_once_the_reward_is_identified_nobody_is_asked() -> None:
    rewards = PreferenceToReward(noiseless(1), CANDIDATES, 0, bound=3.0, repeats=10, confidence=0.01)
    for _ in range(3):
        for response in range(4):
            expected = float(CANDIDATES[1, response] - CANDIDATES[1, 0])
            assert rewards.reward(response) == pytest.approx(expected, abs=1e-9)
    assert rewards.possible.tolist() == [False, True, False]
    assert rewards.comparisons == 20, "response 1 rules out one candidate, response 2 the other"


def test_the_baseline_itself_is_worth_nothing_and_costs_nothing() -> None:
    rewards = PreferenceToReward(noiseless(1), CANDIDATES, 2, bound=3.0)
    assert rewards.reward(2) == 0
    assert rewards.comparisons == 0


def test_a_response_that_always_wins_gets_the_bound() -> None:
    rewards = PreferenceToReward(lambda *_: 1.0, CANDIDATES, 0, bound=3.0, confidence=100.0)
    assert rewards.reward(1) == 3


def test_a_class_without_the_truth_is_noticed() -> None:
    rewards = PreferenceToReward(lambda *_: 0.0, CANDIDATES, 0, bound=3.0, confidence=0.01)
    rewards.reward(1)
    with pytest.raises(PreferoError, match="no candidate reward"):
        rewards.reward(2)
