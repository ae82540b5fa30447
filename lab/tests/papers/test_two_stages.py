"""Demonstrations first, then preferences, each stage with a reference of its own."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.two_stages import TwoStages
from tests.demo.small import SMALL, WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(TwoStages):
    text_world = WRITING


BUDGET = {"pairs": 32, "epochs": 1.0, "examples_per_step": 8, "prompts": 8, "demonstrations": 16}
FIRST = {"objective": {"method": "nll"}, "learning_rate": 1e-2}
SECOND = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-2}


def test_the_second_stage_is_measured_against_what_the_first_made():
    experiment = Small(**BUDGET)
    made = experiment.make(0)
    alone, after = (
        experiment.measure(made, experiment.train(made, {"first": first, "second": SECOND}, 0).model, 0)
        for first in (None, FIRST)
    )
    start = experiment.measure(made, experiment.start(made), 0)
    assert alone["chosen_reward"] == alone["chosen_log_ratio"]
    assert alone["gold_after_first"] == start["gold_reward"] == start["gold_after_first"]
    assert after["chosen_reward"] != after["chosen_log_ratio"]
    assert after["gold_after_first"] != alone["gold_after_first"]
    assert after == experiment.measure(
        made, experiment.train(made, {"first": FIRST, "second": SECOND}, 0).model, 0
    )


def test_demonstrations_are_the_best_of_some_and_the_same_again():
    one, best = (Small(**BUDGET, best_of=count).make(0).demonstrations for count in (1, 8))
    gold = [fmean(SMALL.gold(row["prompt"], row["chosen"]) for row in rows) for rows in (one, best)]
    assert gold[1] > gold[0] + 0.3
    assert Small(**BUDGET, best_of=8).make(0).demonstrations == best


def test_chosen_responses_may_be_the_demonstrations():
    made = Small(**BUDGET, chosen_demonstrated=True).make(0)
    assert made.demonstrations == made.rows
    sampled = {row["prompt"]: {row["chosen"], row["rejected"]} for row in Small(**BUDGET).make(0).rows}
    assert all(row["rejected"] in sampled[row["prompt"]] for row in made.rows)
    assert all(row["chosen"].endswith(".") for row in made.rows)
