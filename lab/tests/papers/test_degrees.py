"""Degrees of removed content: who tells them, and what log-ratios make of them."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from prefero_lab.papers.experiments.degrees import DegreesExperiment, graded, head, probed
from tests.demo.small import WRITING


class Small(DegreesExperiment):
    text_world = WRITING


def test_variants_of_one_answer_are_ordered_by_what_they_lack():
    degree, whose = [0, 1, 2, 0, 2], [0, 0, 0, 1, 1]
    assert list(graded([3.0, 2.0, 1.0, 0.0, -1.0], degree, whose)) == [1.0] * 4
    assert list(graded([1.0, 2.0, 3.0, 0.0, 0.0], degree, whose)) == [0.0] * 3 + [0.5]


@pytest.mark.parametrize("telling", [True, False])
def test_a_probe_tells_what_states_show(telling):
    generator = torch.Generator().manual_seed(0)
    degree = torch.randint(3, (300,), generator=generator)
    states = torch.randn(300, 8, generator=generator)
    if telling:
        states[:, 0] += 5.0 * degree
    fitting = torch.arange(300) % 2 == 0
    assert (fmean(probed(states, degree, fitting, 3)) > 0.6) is telling


def test_the_head_is_the_arms_own_and_the_reference_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    experiment = Small(pairs=64, epochs=1.0, examples_per_step=8, prompts=4, held_out_pairs=16)
    made = experiment.make(0)
    settings = {"objective": {"method": "spo_self_supervised"}, "learning_rate": 1e-2}
    found = experiment.train(made, settings, 0)
    numbers = experiment.measure(made, found.model, 0)
    start = experiment.measure(made, experiment.start(made), 0)
    assert len(numbers["degree"]) == len(start["degree"])
    own = head(found.model.objective)
    assert own is not None and head(experiment.start(made).objective) is None
    assert torch.stack([weight.square().sum() for weight in own.parameters()]).sum() > 0
    assert set(start["graded"]) == {0.5} and len(numbers["graded"]) == len(start["graded"])
