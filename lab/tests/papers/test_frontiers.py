"""Frontiers: what lies between two points, the closed form on top, and that a broken method falls below."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from prefero_lab.papers.experiments.frontiers import Frontiers, between
from prefero_lab.worlds.bandit import Bandit, ordered_pairs

EXPERIMENT = Frontiers(prompts=3, responses=4, steps=40)
BETAS = (0.2, 1.0, 5.0)


def measured(experiment: Frontiers = EXPERIMENT, **settings: object) -> dict[str, float]:
    made = experiment.make(0)
    path = experiment.train(made, {"betas": BETAS, "groups": 40, "size": 2, **settings}, 0).model
    return {name: fmean(values) for name, values in experiment.measure(made, path, 0).items()}


def test_between_two_points_rewards_are_linear_in_the_divergences_root() -> None:
    spent, rewards = torch.tensor([4.0, 0.0, 1.0]), torch.tensor([[9.0], [0.0], [5.0]])
    assert between(spent, rewards, 0.25).tolist() == [2.5]
    assert between(spent, rewards, 2.25).tolist() == [7.0]
    assert between(spent, rewards, 4.0).tolist() == [9.0]
    assert math.isnan(between(spent, rewards, 4.5).item())


def test_the_optimum_is_above_what_is_learnt_and_that_above_the_start() -> None:
    optimum, dpo = measured(optimum=True), measured(objective={"method": "dpo"})
    start = EXPERIMENT.make(0).bandit
    assert start.reward is not None
    alone = float((start.reference * start.reward).sum(-1).mean())
    assert optimum["reward at 0.25"] > dpo["reward at 0.25"] > alone + 0.05
    assert dpo == measured(objective={"method": "dpo"})


def test_scores_that_are_the_wrong_way_round_cost_reward() -> None:
    """As a flipped sign in the objective would; the scores decide, not the labels."""
    right, wrong = (
        measured(objective={"method": "rpo_reward_aware", "eta": 1.0}, noise=noise) for noise in (0.0, 100.0)
    )
    assert right["reward at 0.25"] > wrong["reward at 0.25"] + 0.1


@pytest.mark.parametrize("settings", [{"lists": True, "size": 3}, {"rounds": 2}])
def test_lists_and_rounds_learn_too(settings: dict[str, object]) -> None:
    key = "rpo_reward_aware_lists" if "lists" in settings else "rpo_reward_aware"
    linear = replace(EXPERIMENT, features=2, residual=0.1)
    found = measured(linear, objective={"method": key, "divergence": "squared"}, **settings)
    made = linear.make(0).bandit
    assert made.reward is not None
    assert found["reward at 0.25"] > float((made.reference * made.reward).sum(-1).mean()) + 0.05


def test_groups_are_different_responses_with_their_rewards_and_pairs_name_the_better_one_first() -> None:
    bandit = Bandit.bradley_terry(2, 4)
    assert bandit.reward is not None
    groups = bandit.scored_groups(20, 3, 0)
    assert groups == bandit.scored_groups(20, 3, 0) != bandit.scored_groups(20, 3, 1)
    for group in groups:
        prompt = bandit.table.prompts.index(group["prompt"])
        places = [bandit.table.responses[prompt].index(one) for one in group["responses"]]
        assert len(set(places)) == 3 and group["scores"] == bandit.reward[prompt, places].tolist()
    pairs = ordered_pairs(groups)
    assert len(pairs) == 60 and all(row["chosen_score"] > row["rejected_score"] for row in pairs)
    assert ordered_pairs([{"prompt": "x", "responses": ["a", "b"], "scores": [1.0, 1.0]}]) == []
