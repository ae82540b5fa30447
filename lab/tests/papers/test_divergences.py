"""Divergences: every method ends at its own optimum, and not at another's."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from prefero_lab.papers.experiments.divergences import KINDS, Divergences

EXPERIMENT = Divergences(prompts=2, responses=3, betas=(0.1, 0.3, 1.0), spent=(0.1,) * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_ends_at_the_optimum_of_its_divergence(kind: str) -> None:
    made = EXPERIMENT.make(0)
    objective = {"method": "f_dpo", "divergence": kind}
    path = EXPERIMENT.train(made, {"objective": objective}, 0).model
    found = {name: fmean(values) for name, values in EXPERIMENT.measure(made, path, 0).items()}
    own = found.pop(f"distance {kind}")
    others = [value for name, value in found.items() if name.startswith("distance")]
    assert own < 1e-5 and min(others) > 1e-3
    best = EXPERIMENT.measure(made, EXPERIMENT.train(made, {"optimum": kind}, 0).model, 0)
    assert found[f"reward for {kind}"] == pytest.approx(fmean(best[f"reward for {kind}"]), abs=1e-4)


def test_the_start_has_spent_nothing() -> None:
    made = EXPERIMENT.make(0)
    found = EXPERIMENT.measure(made, EXPERIMENT.start(made), 0)
    assert all(math.isnan(one) for one in found["reward for jsd"])  # its path goes nowhere
    assert fmean(found["distance jsd"]) > 0.01
