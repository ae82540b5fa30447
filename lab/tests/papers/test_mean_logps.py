"""The experiment with mean log-probabilities per token, and training that ends at a margin."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.mean_logps import MeanLogps
from tests.demo.small import WRITING


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(MeanLogps):
    text_world = WRITING


def test_training_ends_soon_after_the_margin_is_reached():
    """Looked at over the sums instead of the means, or the other way round, it would end at once or never."""
    settings = {"objective": {"method": "simpo", "beta": 2.0, "gamma": 1.0}, "learning_rate": 5e-4}
    margins = []
    for until in (0.02, 0.1):
        experiment = Small(pairs=64, epochs=30.0, examples_per_step=16, prompts=64, until=until)
        made = experiment.make(0)
        trained = experiment.train(made, settings, 0)
        start, found = (experiment.measure(made, one, 0) for one in (made.start.model, trained.model))
        margins.append(fmean(found["margin"]) - fmean(start["margin"]))
        assert len(found["active"]) == len(found["chosen_mean"])
        assert fmean(found["active"]) == fmean(float(one < 0.4) for one in found["margin"])
        for chosen, rejected, margin in zip(
            *(found[name] for name in ("chosen_mean", "rejected_mean", "margin")), strict=True
        ):
            assert chosen - rejected == pytest.approx(margin)
    assert 0.02 <= margins[0] < 0.1 <= margins[1] < 0.3
