"""Several processes: the same numbers, seeds kept together, errors that come back, nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, replace

import pytest

from lab.tests.papers.made_up import MadeUp, paper
from prefero.errors import PreferoError
from prefero_lab.papers import reproduce, reproduce_all
from prefero_lab.papers.measure import Task
from prefero_lab.papers.paper import FIRST_JUDGED_SEED, Arm, Paper
from prefero_lab.papers.workers import _next

S = FIRST_JUDGED_SEED


def long(one: Paper) -> Paper:
    """A paper that is worth other processes."""
    return replace(one, evidence=tuple(replace(each, seconds=100.0) for each in one.evidence))


@dataclass(frozen=True)
class Fragile(MadeUp):
    """Breaks in one of the ways in which processes do."""

    def train(self, made, settings, seed):
        if settings.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.get("breaks"):
            raise ZeroDivisionError("by nothing")
        return super().train(made, settings, seed)


def test_two_processes_find_what_one_finds(tmp_path):
    told: list[tuple[int, int, str]] = []
    both = reproduce(long(paper()), output=tmp_path / "two", jobs=2, progress=lambda *one: told.append(one))
    alone = reproduce(paper(), output=tmp_path / "one")
    assert both.verdict == alone.verdict
    assert both.evidence[0].comparisons == alone.evidence[0].comparisons
    assert len(told) == 10 and told[-1] == (9, 9, "")
    assert {what for _, _, what in told[:-1]} == {
        f"seed {seed}: {arm}" for seed in (S, S + 1, S + 2) for arm in ("start", "better", "worse")
    }
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("how", "message"), [("breaks", "ZeroDivisionError: by nothing"), ("dies", "ended with -9")]
)
def test_what_breaks_in_a_process_is_said_here_and_costs_no_other_paper(tmp_path, how, message):
    one = long(paper(experiment=Fragile(), worse={"gain": 0.5, how: True}))
    survey = reproduce_all([one, long(paper(key="other"))], output=tmp_path, jobs=2)
    assert message in str(survey.failed["made_up"])
    assert [found.paper.key for found in survey.found] == ["other"]
    assert isinstance(survey.failed["made_up"], PreferoError)
    assert multiprocessing.active_children() == []


class At:
    """A worker as the choice of its next task sees it."""

    def __init__(self, *made: str) -> None:
        self.made = list(made)


def test_a_worker_keeps_to_its_seeds_then_takes_new_ones_then_helps():
    arms = [Arm("one", {"gain": 1}), Arm("two", {"gain": 2})]
    tasks = [Task(MadeUp(), arm, seed) for seed in (1, 2, 3) for arm in arms]
    first, second = At(tasks[0].made_from), At(tasks[2].made_from)
    waiting = [tasks[1], tasks[3], tasks[4], tasks[5]]
    assert _next(waiting, second, [first, second]) is tasks[3]
    assert _next(waiting, second, [first, second]) is tasks[4]
    second.made.append(tasks[4].made_from)
    assert _next(waiting, first, [first, second]) is tasks[1]
    assert _next(waiting, first, [first, second]) is tasks[5]
    assert waiting == []
