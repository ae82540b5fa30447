"""The experiment where the reference may be another model than the start."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from prefero.demo.reviews import read_review
from prefero_lab.papers.experiments.references import References, astray
from tests.demo.small import WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("prefero.demo.reviews.REVIEWS", WRITING)


def test_all_three_references_are_other_models_and_the_start_stays_as_it_is():
    experiment = References(pairs=48, epochs=1.0, examples_per_step=8, prompts=8, base_steps=20)
    made = experiment.make(0)
    before = made.start.model.lm_head.weight.detach().clone()

    def trained(**settings: str) -> torch.Tensor:
        arm = {"objective": {"method": "dpo", "beta": 1.0}, "learning_rate": 1e-3, **settings}
        model: Any = experiment.train(made, arm, 0).model
        return model.lm_head.weight

    own, stronger, unrelated = trained(), trained(reference="stronger"), trained(reference="unrelated")
    assert not torch.equal(own, stronger) and not torch.equal(own, unrelated)
    assert not torch.equal(stronger, unrelated)
    assert torch.equal(made.start.model.lm_head.weight, before)


def test_responses_astray_are_to_other_prompts():
    rng, other = random.Random(0), astray(WRITING)
    prompts = WRITING.prompts(held_out=False)[:40]
    astray_valid = [read_review(prompt, other.write(prompt, rng)).valid for prompt in prompts]
    assert all(read_review(prompt, WRITING.write(prompt, rng)).valid for prompt in prompts)
    assert sum(astray_valid) < 30
