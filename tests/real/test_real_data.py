"""Whole runs on real preference data, through the command line, with models made from configurations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from examples import real_data
from examples.real_data import Outcome

pytestmark = pytest.mark.real


def check(outcome: Outcome) -> None:
    """What holds for every run: finite, one epoch, a policy that moved, a report with its numbers."""
    assert math.isfinite(outcome.last_loss)
    assert math.isfinite(outcome.held_out_loss)
    assert 1e-4 < outcome.moved < 1
    record = json.loads((outcome.report.parent / "run.json").read_text())
    assert record["finished"]
    assert record["method"]["key"] == outcome.method
    assert outcome.steps == math.ceil(record["data"]["train"]["examples"] / 16)
    page = outcome.report.read_text()
    assert outcome.method in page.lower()
    assert "<svg" in page


@pytest.fixture(scope="module")
def preferences(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    outcomes = real_data.study("hh", data, tmp_path_factory.mktemp("hh"))
    print(f"\n{real_data.table(outcomes)}")
    return {outcome.method: outcome for outcome in outcomes}


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_pairs_of_people_are_ordered_better_than_by_chance(
    preferences: dict[str, Outcome], method: str
) -> None:
    """On held-out pairs the implicit reward of chosen exceeds that of rejected in more than half the cases,
    with the 95 % interval."""
    outcome = preferences[method]
    check(outcome)
    assert outcome.interval is not None
    assert outcome.interval.low > 0.5


def test_ties_of_annotators_train_with_todo(data: Path, tmp_path: Path) -> None:
    (outcome,) = real_data.study("pandalm", data, tmp_path)
    check(outcome)
    assert outcome.margin > 0


def test_marked_solutions_train_with_kto(data: Path, tmp_path: Path) -> None:
    (outcome,) = real_data.study("gsm8k", data, tmp_path)
    check(outcome)
    assert outcome.margin > 0
