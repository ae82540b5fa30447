"""The second run starts where all do, against the guide."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from prefero_lab.papers.experiments.guided import Guided
from tests.demo.small import WRITING


class Small(Guided):
    """A start model that has learnt to stop, not to write: fast, and enough to see what goes where."""

    text_world: ClassVar = WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


def test_a_guide_is_the_reference_and_not_where_the_second_run_starts():
    experiment = Small(pairs=32, epochs=1.0, examples_per_step=8, prompts=8)
    made = experiment.make(0)
    run = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 5e-3}
    still = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-12, "guide": run}
    found = experiment.train(made, still, 0)
    start = made.start.model.state_dict()
    for name, weight in found.model.state_dict().items():
        assert torch.allclose(weight, start[name], atol=1e-6)
    plain = experiment.train(made, {**run, "learning_rate": 1e-12}, 0)
    # against itself a policy's first loss is log 2, against a guide that learned the pairs it is more
    assert plain.curves["loss"][0][1] == pytest.approx(0.693, abs=1e-3)
    assert found.curves["loss"][0][1] > plain.curves["loss"][0][1] + 1e-3
