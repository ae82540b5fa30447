"""How log-ratios order answers: unequal ones by gold, equal ones not at all."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.ranking import Ranked, RankingExperiment, orders
from prefero_lab.worlds.noisy import Ties
from tests.demo.small import WRITING


class Small(RankingExperiment):
    """A start model that has learnt to stop, not to write."""

    text_world = WRITING


def small() -> Small:
    budget = {"pairs": 128, "epochs": 3.0, "examples_per_step": 8, "prompts": 4, "held_out_pairs": 32}
    return Small(**budget, labels=(Ties(0.3),))


def test_equals_have_no_order_and_others_one():
    gaps = [0.0, 0.2, 1.0, 2.0]
    found = orders([0.5, -0.5, 1.0, -3.0], gaps, equal=0.3)
    assert found["ranking"] == [1.0, 0.0]
    assert found["equal_margin"] == [0.5, 0.5] and found["unequal_margin"] == [1.0, -3.0]
    assert found["ternary"] == pytest.approx([(-1.0 - 0.5) / (1.0 + 0.5)])
    turned = orders([-0.5, 0.5, -1.0, 3.0], gaps, equal=0.3)
    assert turned["ranking"] == [0.0, 1.0] and turned["equal_margin"] == found["equal_margin"]
    assert turned["correlation"] == pytest.approx([-one for one in found["correlation"]])


def test_a_policy_that_has_not_moved_orders_nothing():
    found = orders([0.0, 0.0, 0.0], [0.0, 1.0, 2.0], equal=0.3)
    assert found["ranking"] == [0.5, 0.5] and found["correlation"] == found["ternary"] == [0.0]


def test_a_log_ratio_that_is_gold_correlates_wholly():
    assert orders([0.1, 1.0, 2.0], [0.1, 1.0, 2.0], equal=0.3)["correlation"] == pytest.approx([1.0])


def test_numbers_are_the_same_again_and_columns_can_be_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    experiment = small()
    made, again = experiment.make(0), experiment.make(0)
    assert isinstance(made, Ranked) and made.texts == again.texts and made.gaps == again.gaps
    assert min(made.gaps) >= 0 and any(row["tie"] for row in made.rows)
    trained = {row["prompt"] for row in made.rows}
    assert not trained & {row["prompt"] for row in made.texts}
    start = experiment.measure(made, experiment.start(made), 0)
    assert fmean(start["ranking"]) == 0.5 and start["correlation"] == [0.0]
    settings = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-2}
    moved = {}
    for name, own in {"left out": {}, "tossed": {"without": ["tie"]}}.items():
        found = experiment.train(made, {**settings, **own}, 0)
        moved[name] = fmean(experiment.measure(made, found.model, 0)["equal_margin"])
    assert 0 < moved["left out"] != moved["tossed"] > 0
