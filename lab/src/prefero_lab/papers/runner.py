"""Evidence is measured: every arm on every seed, what is on disk not again, and the verdicts follow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from prefero.errors import PreferoError
from prefero.storage import write_json
from prefero_lab.papers import workers
from prefero_lab.papers.measure import Task
from prefero_lab.papers.outcome import (
    CheckOutcome,
    ClaimOutcome,
    Outcome,
    ResultOf,
    Tuned,
    check_outcome,
    claim_outcome,
)
from prefero_lab.papers.paper import Arm, Check, Claim, Evidence, Paper
from prefero_lab.papers.results import Measured, Results
from prefero_lab.papers.survey import find
from prefero_lab.papers.table import as_dict

T = TypeVar("T")

Progress = Callable[[int, int, str], None]
"""Told how many results are there, of how many, and what is measured next."""

WORTH_A_PROCESS = 20
"""Seconds of work below which no other process is started: it would take that long to get ready."""


@dataclass(frozen=True)
class Survey:
    """Outcomes of several papers, and by key the errors of those that could not be measured."""

    found: tuple[Outcome, ...]
    failed: dict[str, Exception]


def reproduce(
    key: str | Paper,
    *,
    seeds: int | None = None,
    output: str | Path | Results = "reproduced",
    fresh: bool = False,
    tune: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Outcome:
    """Measure a paper's evidence and judge it.

    ``seeds`` is how many (from :data:`~prefero_lab.papers.paper.FIRST_JUDGED_SEED` on), by default as many as
    the evidence says. Each result is kept in the folder ``output`` once it is there, and not measured again
    unless ``fresh``; ``output/KEY.json`` has the numbers and verdicts of the last time. ``tune`` chooses step
    sizes and the like again, on seeds that are not judged. ``jobs`` is how many processes measure at once:
    with more than one, a script that calls this has to be importable, as for :mod:`multiprocessing`.

    Raises:
        PreferoError: an unknown key, or fewer than one seed.
        KeyboardInterrupt: interrupted; the message says what is kept.
    """
    paper = find(key) if isinstance(key, str) else replace(key, key=key.key or key.id)
    results = output if isinstance(output, Results) else Results(output, fresh=fresh)
    survey = reproduce_all([paper], seeds=seeds, output=results, tune=tune, jobs=jobs, progress=progress)
    for error in survey.failed.values():
        raise error
    return survey.found[0]


def reproduce_all(
    papers: Sequence[Paper],
    *,
    seeds: int | None = None,
    output: str | Path | Results = "reproduced",
    fresh: bool = False,
    tune: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Survey:
    """:func:`reproduce` for several papers: what they have in common is measured once, and one that breaks
    does not cost the others theirs."""
    if seeds is not None and seeds < 1:
        raise PreferoError(f"seeds is {seeds}; at least one is needed, and two for a verdict")
    results = output if isinstance(output, Results) else Results(output, fresh=fresh)
    plans = {paper.key: [Plan.judged(one, seeds) for one in paper.evidence] for paper in papers}
    grids = {key: [plan.tuning for plan in some] if tune else [] for key, some in plans.items()}
    failed: dict[str, Exception] = {}
    run = _Run(papers, results, jobs, progress)
    run.expect(itertools.chain(*plans.values(), *grids.values()))
    try:
        if tune:
            run.measure(grids)
            plans, failed = _each(plans, lambda plan: plan.tuned(run.result))
        run.measure(plans)
    except KeyboardInterrupt:
        whose = papers[0].key if len(papers) == 1 else f"{len(papers)} papers"
        raise KeyboardInterrupt(
            f"interrupted; {run.done} of {run.total} results of {whose} are in {results.folder}: the same "
            "command resumes from there"
        ) from None
    evidence, unjudged = _each(plans, lambda plan: plan.outcome(run.result))
    found = tuple(Outcome(paper, tuple(evidence[paper.key])) for paper in papers if paper.key in evidence)
    for outcome in found:
        write_json(results.folder / f"{outcome.paper.key}.json", as_dict(outcome), indent=None)
    return Survey(found, failed | unjudged)


def _each(
    plans: Mapping[str, Sequence[Plan]], act: Callable[[Plan], T]
) -> tuple[dict[str, list[T]], dict[str, Exception]]:
    """What becomes of each paper's plans, and what went wrong with the others."""
    found: dict[str, list[T]] = {}
    failed: dict[str, Exception] = {}
    for key, some in plans.items():
        try:
            found[key] = [act(plan) for plan in some]
        except Exception as error:
            failed[key] = error
    return found, failed


@dataclass(frozen=True)
class Plan:
    """What is measured of a piece of evidence: these arms (of a check: the one that is None) on these
    seeds."""

    evidence: Evidence
    arms: tuple[Arm | None, ...]
    seeds: tuple[int, ...]
    choices: tuple[Tuned, ...] = ()

    @classmethod
    def judged(cls, evidence: Evidence, seeds: int | None) -> Plan:
        arms = evidence.arms if isinstance(evidence, Claim) else (None,)
        over = range(evidence.judged_from, evidence.judged_from + (seeds or evidence.seeds))
        return cls(evidence, arms, tuple(over))

    @property
    def tuning(self) -> Plan:
        """The candidates of all arms, on the seeds for tuning."""
        if isinstance(self.evidence, Check):
            return replace(self, arms=(), seeds=())
        candidates = tuple(one for arm in self.evidence.arms for one in _candidates(arm))
        return replace(self, arms=candidates, seeds=self.evidence.tuning_seeds)

    def tuned(self, result: ResultOf) -> Plan:
        """The same with each arm's best candidate, by the metric of the first expectation, in its
        direction."""
        if isinstance(self.evidence, Check):
            return self
        choices = tuple(_choice(self.evidence, arm, result) for arm in self.evidence.arms if arm.grid)
        better = {one.arm: one.chosen for one in choices}
        arms = tuple(replace(arm, settings=better.get(arm.name, arm.settings)) for arm in self.evidence.arms)
        return replace(self, arms=arms, choices=choices)

    @cached_property
    def tasks(self) -> list[Task]:
        subject = self.evidence if isinstance(self.evidence, Check) else self.evidence.experiment
        return [Task(subject, arm, seed) for seed in self.seeds for arm in self.arms]

    @property
    def seconds_a_task(self) -> float:
        arms = len(self.evidence.arms) if isinstance(self.evidence, Claim) else 1
        return self.evidence.seconds / (arms * self.evidence.seeds)

    def outcome(self, result: ResultOf) -> ClaimOutcome | CheckOutcome:
        if isinstance(self.evidence, Check):
            return check_outcome(self.evidence, self.seeds, result)
        arms = [arm for arm in self.arms if arm is not None]
        return claim_outcome(self.evidence, arms, self.seeds, result, self.choices)


def _candidates(arm: Arm) -> list[Arm]:
    """An arm for every combination of the grid's values; none for an arm without a grid."""
    combinations = itertools.product(*arm.grid.values()) if arm.grid else ()
    return [
        Arm(f"{arm.name}-candidate{i}", {**(arm.settings or {}), **dict(zip(arm.grid, values, strict=True))})
        for i, values in enumerate(combinations)
    ]


def _choice(claim: Claim, arm: Arm, result: ResultOf) -> Tuned:
    goal = claim.expected[0]

    def mean(candidate: Arm) -> float:
        tasks = [Task(claim.experiment, candidate, seed) for seed in claim.tuning_seeds]
        return fmean(fmean(result(task).metrics[goal.metric]) for task in tasks)

    scores = tuple((one.settings or {}, mean(one)) for one in _candidates(arm))
    best = (max if goal.direction == "higher" else min)(scores, key=lambda score: score[1])
    return Tuned(arm.name, goal.metric, scores, best[0])


class _Run:
    """Measures what is not on disk yet, and tells of it."""

    def __init__(
        self, papers: Sequence[Paper], results: Results, jobs: int, progress: Progress | None
    ) -> None:
        self.alone, self.results, self.jobs, self.progress = len(papers) == 1, results, jobs, progress
        self.total, self._there, self._failed = 0, set[str](), dict[str, Exception]()

    @property
    def done(self) -> int:
        return len(self._there)

    def expect(self, plans: Iterable[Plan]) -> None:
        self.total = len({task.mark for plan in plans for task in plan.tasks})

    def measure(self, plans: Mapping[str, Sequence[Plan]]) -> None:
        """What each paper plans.

        Raises:
            Exception: that of a task, if there is but one paper to measure.
        """
        waiting: dict[str, Task] = {}
        labels: dict[str, str] = {}
        seconds = 0.0
        for key, some in plans.items():
            for plan in some:
                for task in plan.tasks:
                    if task.mark in self._there or task.mark in waiting:
                        continue
                    if self.results.get(task.name, task.seed, task.mark) is not None:
                        self._there.add(task.mark)
                        continue
                    waiting[task.mark] = task
                    labels[task.mark] = f"{'' if self.alone else f'{key}, '}seed {task.seed}: {task.name}"
                    seconds += plan.seconds_a_task
        jobs = self.jobs if seconds > WORTH_A_PROCESS else 1
        tasks = list(waiting.values())
        for task, result in workers.measured(tasks, jobs, lambda task: self._tell(labels[task.mark])):
            if isinstance(result, Measured):
                self.results.put(result, task.mark)
                self._there.add(task.mark)
            elif self.alone:
                raise result
            else:
                self._failed[task.mark] = result
        if self.done == self.total:
            self._tell("")

    def result(self, task: Task) -> Measured:
        if task.mark in self._failed:
            raise self._failed[task.mark]
        found = self.results.get(task.name, task.seed, task.mark)
        if found is None:
            raise PreferoError(
                f"{self.results.place(task.seed, task.mark)} has gone while others were measured"
            )
        return found

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total, what)
