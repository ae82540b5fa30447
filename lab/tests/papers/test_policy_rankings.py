"""How a policy's likelihood orders pairs, beside the optimum in closed form."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from prefero_lab.papers.experiments.policy_rankings import PolicyRankings
from tests.demo.small import WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(PolicyRankings):
    text_world = WRITING


@pytest.fixture
def experiment():
    return Small(pairs=64, epochs=4.0, examples_per_step=8, prompts=48)


def test_training_flips_pairs_and_the_start_flips_none(experiment):
    made = experiment.make(0)
    settings = {"objective": {"method": "dpo_gamma", "gamma": 0.0}, "learning_rate": 1e-2}
    start = experiment.measure(made, experiment.start(made), 0)
    after = experiment.measure(made, experiment.train(made, settings, 0).model, 0)
    assert start["flipped"] == start["easy_flipped"] == [0.0] and set(start["trained_reward"]) == {0.0}
    assert len(start["held_out"]) == len(made.held_out_pairs) == len(made.sureness) == len(made.before)
    assert after["flipped"][0] > 0.2 and fmean(after["trained"]) > fmean(start["trained"])


def test_easy_pairs_are_those_that_the_start_has_less_wrong(experiment):
    """The measure must turn round if the order of difficulty did."""
    made = experiment.make(0)
    wrong = made.training_before < 0
    median = made.training_before[wrong].median()
    easy, hard = wrong & (made.training_before > median), wrong & (made.training_before < median)
    kept = [pair for pair, one in zip(made.training, easy | hard, strict=True) if one]
    before = made.training_before[easy | hard]
    swapped = [
        (pair[1], pair[0]) if one else pair for pair, one in zip(kept, before > median, strict=True)
    ]  # the start model itself orders the swapped ones right
    told = replace(made, training=swapped, training_before=before)
    found = experiment.measure(told, experiment.start(made), 0)
    assert found["easy_flipped"] == [1.0]
    assert found["flipped"][0] == pytest.approx(easy.sum().item() / (easy | hard).sum().item())


def test_the_ideal_is_nearer_to_all_right_the_smaller_beta(experiment):
    made = experiment.make(0)
    found = [fmean(experiment.measure(made, experiment.train(made, {"ideal": beta}, 0).model, 0)["held_out"])
             for beta in (1e-6, 0.1, 1e6)]  # fmt: skip
    reference = fmean(experiment.measure(made, experiment.start(made), 0)["held_out"])
    assert found[0] == 1.0 and found[0] >= found[1] >= found[2] == pytest.approx(reference)
    assert torch.all(made.sureness > 0)
