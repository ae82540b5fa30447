"""Two groups of prompts: what is measured, and that a broken method changes it."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.two_groups import TwoGroups

EXPERIMENT = TwoGroups(prompts=4, responses=3)


def measured(**settings: object) -> dict[str, float]:
    made = EXPERIMENT.make(0)
    policy = EXPERIMENT.train(made, settings, 0).model if settings else EXPERIMENT.start(made)
    return {name: fmean(values) for name, values in EXPERIMENT.measure(made, policy, 0).items()}


def test_the_start_is_right_in_one_group_and_wrong_in_the_other() -> None:
    start, right = measured(), measured(right=True)
    assert start["good group"] == pytest.approx(0, abs=1e-12) and start["bad group"] > 0.2
    assert start["from the reference"] == 0 and right["bad group"] == pytest.approx(0, abs=1e-12)


def test_numbers_are_the_same_again() -> None:
    settings = {"objective": {"method": "typo", "divergence": "whole"}}
    assert measured(**settings) == measured(**settings)


def test_a_pull_to_the_reference_does_not_harm_the_group_where_it_is_right() -> None:
    typo = measured(objective={"method": "typo", "lam": 0.1, "divergence": "whole"})
    assert typo["good group"] < 1e-4 and 0.01 < typo["bad group"] < measured()["bad group"]


def test_a_reference_inside_the_reward_does() -> None:
    """Which is what TYPO would be with the log-ratio in its comparison."""
    assert measured(objective={"method": "dpo", "beta": 1.0})["good group"] > 0.05
