"""The experiment with three answers a prompt, from a base model."""

from __future__ import annotations

import pytest

from prefero_lab.papers.experiments.triples import Triples
from tests.demo.small import SMALL, WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(Triples):
    text_world = WRITING


def test_answers_are_ordered_by_gold_and_arms_train_on_all_three_or_the_outer_two():
    experiment = Small(pairs=48, epochs=1.0, examples_per_step=8, prompts=16, base_steps=10)
    made = experiment.make(0)
    assert made.rows and made.rows == experiment.make(0).rows
    for row in made.rows:
        scores = [SMALL.gold(row["prompt"], row[name]) for name in ("gold", "chosen", "rejected")]
        assert scores == sorted(scores, reverse=True) and scores[0] > scores[2]
    tpo = {"objective": {"method": "tpo_triple", "beta": 0.1, "alpha": 1.0}, "learning_rate": 5e-3}
    supervised = {"objective": {"method": "nll"}, "learning_rate": 5e-3, "pairs": True}
    for settings in (tpo, supervised):
        found = experiment.measure(made, experiment.train(made, settings, 0).model, 0)
        assert len(found["gold_reward"]) == 16 and found["kl"][0] > 0
