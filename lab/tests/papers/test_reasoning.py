"""The experiment on calculations, with a start model that takes a moment."""

from __future__ import annotations

import functools
from pathlib import Path
from statistics import fmean

import pytest

from lab.tests.worlds.test_arithmetic import PROBLEM, RIGHT, WRONG, drawn, small
from prefero.errors import PreferoError
from prefero_lab.papers.experiments.reasoning import Data, Made, ReasoningExperiment
from prefero_lab.worlds.arithmetic import ARITHMETIC, ArithmeticWorld, check, outcome_pairs


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


class Small(ReasoningExperiment):
    """A start model that cannot calculate, and samples that are given."""

    @property
    def world(self) -> ArithmeticWorld:
        return small()

    @functools.cached_property
    def given(self) -> Made:
        samples = [drawn(RIGHT), drawn(WRONG), drawn(WRONG.replace("# 4", "# 5")), drawn(RIGHT)]
        return Made(self.world.start_model(seed=0), samples, outcome_pairs(samples, 0))


def test_a_start_that_is_hardly_ever_right_is_refused() -> None:
    with pytest.raises(PreferoError, match="right in 0%"):
        Small(problems=2, test_problems=8).make(0)


def test_numbers_are_one_a_problem_and_the_same_again() -> None:
    experiment = Small(test_problems=8, epochs=4.0)
    settings = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-2}
    first, second = (experiment.train(experiment.given, settings, 0).model for _ in range(2))
    found = experiment.measure(experiment.given, first, 0)
    assert found == experiment.measure(experiment.given, second, 0)
    assert {len(values) for name, values in found.items() if name not in ("kl", "greedy")} == {8, 2}
    assert fmean(found["chosen_log_ratio"]) > fmean(found["rejected_log_ratio"])
    start = experiment.measure(experiment.given, experiment.start(experiment.given), 0)
    assert set(start["chosen_log_ratio"]) == {0.0} and abs(start["kl"][0]) < 1e-6 < found["kl"][0]


@pytest.mark.parametrize("kind", ["outcome", "marked outcome", "corrected", "right"])
def test_every_kind_of_data_is_trained_on_at_most_as_many_rows_as_said(kind: Data) -> None:
    experiment = Small()
    rows = experiment.data(experiment.given, kind, 0)
    assert rows and all(check(PROBLEM, row["chosen"]).first_wrong is None for row in rows)
    assert len(Small(rows=1).data(experiment.given, kind, 0)) == 1
    method = {"marked outcome": "full_step_dpo", "corrected": "dpo_bmc", "right": "nll"}.get(kind, "dpo")
    settings = {"objective": {"method": method}, "learning_rate": 1e-3, "data": kind}
    assert experiment.train(experiment.given, settings, 0).curves["loss"]


class Turned(ReasoningExperiment):
    """With the wrong answers chosen."""

    def make(self, seed: int) -> Made:
        made = super().make(seed)
        rows = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in made.rows]
        return Made(made.start, made.samples, rows)


@pytest.mark.slow
def test_dpo_is_right_more_often_and_with_the_sides_exchanged_less_often() -> None:
    assert ARITHMETIC.name == ReasoningExperiment().world.name
    settings = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-4}
    found = {}
    for kind in (ReasoningExperiment, Turned):
        experiment = kind(test_problems=500)
        made = experiment.make(0)
        model = experiment.train(made, settings, 0).model
        found[kind] = fmean(experiment.measure(made, model, 0)["greedy"])
        start = fmean(experiment.measure(made, made.start.model, 0)["greedy"])
    assert found[ReasoningExperiment] > start > found[Turned]
