"""The experiment with pairs of another policy."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest

from prefero_lab.papers.experiments.off_policy import OffPolicy
from prefero_lab.papers.text import TextExperiment
from tests.demo.small import SMALL


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(OffPolicy):
    text_world = replace(
        SMALL, recipe=replace(SMALL.recipe, steps=60, batch=8, examples=200), max_new_tokens=40
    )


def test_a_quarter_of_the_pairs_are_own_and_weigh_more():
    """Marks exchanged would show, and weights that are no lower for a hotter policy's text."""
    experiment = Small(pairs=120, prompts=16, temperature=3.0)
    made = experiment.make(0)
    assert made.rows == experiment.make(0).rows
    plain = len(TextExperiment.make(experiment, 0).rows)
    assert sum(row["own"] for row in made.rows) == plain - round(0.75 * plain)
    assert {row["prompt"] for row in made.rows if row["own"]}.isdisjoint(
        row["prompt"] for row in made.rows if not row["own"]
    )
    found = experiment.measure(made, made.start.model, 0)
    assert 1 >= fmean(found["own_weight"]) > fmean(found["other_weight"]) + 0.1
    assert max(found["own_weight"]) <= 1
