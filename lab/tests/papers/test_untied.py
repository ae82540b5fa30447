"""The experiment whose output layer is a matrix of its own, on which ComPO's steps can be taken."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch

from prefero_lab.papers.experiments.untied import Untied
from prefero_lab.papers.robust.compo import COMPO
from tests.demo.small import WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(Untied):
    text_world = WRITING


def test_the_untied_model_says_the_same_and_only_its_output_layer_moves():
    """Pairs are all alike here, so that a direction for one serves the others: with its sign flipped, chosen
    responses would fall."""
    experiment = Small(pairs=12, epochs=1.0, prompts=8)
    made = experiment.make(0)
    made = replace(made, rows=made.rows[:1] * 6)
    model: Any = made.start.model
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    start = experiment.measure(made, model, 0)
    assert start["kl"][0] == pytest.approx(0, abs=1e-6) and set(start["apart"]) == {0.0}

    objective = {**COMPO["objective"], "perturbations": 40}
    trained: Any = experiment.train(made, {**COMPO, "objective": objective, "learning_rate": 0.1}, 0).model
    assert torch.equal(trained.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert not torch.equal(trained.lm_head.weight, model.lm_head.weight)
    found = experiment.measure(made, trained, 0)
    assert fmean(found["chosen_log_ratio"]) > 0 > fmean(found["rejected_log_ratio"])
    assert set(found["apart"]) == set(found["chosen_rises"]) == {1.0}
