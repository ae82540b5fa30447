"""Evidence is measured: every arm on every seed, what is on disk not again, and the verdicts follow."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from prefero.errors import PreferoError
from prefero.papers.paper import (
    FIRST_JUDGED_SEED,
    Arm,
    Check,
    Claim,
    Evidence,
    Expectation,
    Number,
    Paper,
    Trained,
)
from prefero.papers.results import Measured, Results, fingerprint, library, write
from prefero.papers.survey import find
from prefero.papers.verdicts import (
    FAILS,
    HOLDS,
    Difference,
    Summary,
    Verdict,
    difference,
    judged,
    summary,
    weakest,
)

Progress = Callable[[int, int, str], None]
"""Told how many results are there, of how many, and what is measured next."""


@dataclass(frozen=True)
class Comparison:
    """An expectation, what was found, and what that says of it."""

    expected: Expectation
    found: Difference
    verdict: Verdict


@dataclass(frozen=True)
class Tuned:
    """How an arm's settings were chosen: candidates, their mean on the tuning seeds, and the best one."""

    arm: str
    metric: str
    candidates: tuple[tuple[Mapping[str, Any], float], ...]
    chosen: Mapping[str, Any]


@dataclass(frozen=True)
class ClaimOutcome:
    """What became of a claim. ``arms`` maps arm → metric → summary over seeds; ``results`` holds all numbers
    and curves."""

    claim: Claim
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Summary]]
    comparisons: tuple[Comparison, ...]
    results: tuple[Measured, ...]
    tuned: tuple[Tuned, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return weakest(one.verdict for one in self.comparisons if one.expected.counts)


@dataclass(frozen=True)
class CheckOutcome:
    """What a check yielded, seed by seed."""

    check: Check
    seeds: tuple[int, ...]
    numbers: tuple[tuple[Number, ...], ...]
    results: tuple[Measured, ...]

    @property
    def verdict(self) -> Verdict:
        return HOLDS if all(number.holds for one in self.numbers for number in one) else FAILS


@dataclass(frozen=True)
class Outcome:
    """What became of a paper's evidence."""

    paper: Paper
    evidence: tuple[ClaimOutcome | CheckOutcome, ...]

    @property
    def verdict(self) -> Verdict:
        return weakest(one.verdict for one in self.evidence)

    @property
    def seconds(self) -> float:
        """What it took to measure, whenever that was."""
        return sum(result.seconds for one in self.evidence for result in one.results)

    @property
    def outdated(self) -> int:
        """How many results are of a time when the library's code was another."""
        return sum(result.library != library() for one in self.evidence for result in one.results)

    def as_dict(self) -> dict[str, Any]:
        from prefero.papers.table import as_dict

        return as_dict(self)


def reproduce(
    key: str | Paper,
    *,
    seeds: int | None = None,
    output: str | Path | Results = "reproduced",
    fresh: bool = False,
    tune: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Measure a paper's evidence and judge it.

    ``seeds`` is how many (from :data:`~prefero.papers.paper.FIRST_JUDGED_SEED` on), by default as many as
    the evidence says. Each result is kept in the folder ``output`` once it is there, and not measured again
    unless ``fresh``; ``output/KEY.json`` has the numbers and verdicts of the last time. ``tune`` chooses step
    sizes and the like anew, on seeds that are not judged.

    Raises:
        PreferoError: an unknown key, or fewer than one seed.
        KeyboardInterrupt: interrupted; the message says what is kept.
    """
    paper = find(key) if isinstance(key, str) else replace(key, key=key.key or key.id)
    if seeds is not None and seeds < 1:
        raise PreferoError(f"seeds is {seeds}; at least one is needed, and two for a verdict")
    results = output if isinstance(output, Results) else Results(output, fresh=fresh)
    tasks = sum(_count(one, seeds, tune) for one in paper.evidence)
    steps = _Steps(tasks, progress)
    try:
        found = tuple(
            _claim(one, results, seeds, tune, steps)
            if isinstance(one, Claim)
            else _check(one, results, seeds, steps)
            for one in paper.evidence
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {steps.done} of {tasks} results of {paper.key} are in {results.folder}: the same "
            "command goes on from there"
        ) from None
    outcome = Outcome(paper, found)
    write(results.folder / f"{paper.key}.json", outcome.as_dict())
    return outcome


class _Steps:
    """Counts results, and tells of them."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def next(self, what: str) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total, what)

    def finished(self) -> None:
        self.done += 1
        if self.progress is not None and self.done >= self.total:
            self.progress(self.done, self.total, "")


def _count(evidence: Evidence, seeds: int | None, tune: bool) -> int:
    judged_seeds = seeds or evidence.seeds
    if isinstance(evidence, Check):
        return judged_seeds
    count = len(evidence.arms) * judged_seeds
    if tune:
        count += len(evidence.tuning_seeds) * sum(len(_candidates(arm)) for arm in evidence.arms)
    return count


def _judged_seeds(evidence: Evidence, seeds: int | None) -> tuple[int, ...]:
    return tuple(range(FIRST_JUDGED_SEED, FIRST_JUDGED_SEED + (seeds or evidence.seeds)))


def _claim(claim: Claim, results: Results, seeds: int | None, tune: bool, steps: _Steps) -> ClaimOutcome:
    tuned = _tuned(claim, results, steps) if tune else ()
    better = {one.arm: one.chosen for one in tuned}
    arms = [replace(arm, settings=better.get(arm.name, arm.settings)) for arm in claim.arms]
    over = _judged_seeds(claim, seeds)
    found = [_measured(claim, arms, seed, results, steps) for seed in over]

    def values(arm: str, metric: str) -> list[Sequence[float]]:
        try:
            return [one[arm].metrics[metric] for one in found]
        except KeyError:
            known = ", ".join(found[0][arm].metrics)
            raise PreferoError(f"nothing measures {metric!r} (the experiment gives {known})") from None

    comparisons = []
    for one in claim.expected:
        sides = values(one.treatment, one.metric), values(one.baseline, one.metric)
        between = difference(*sides, lower=one.direction == "lower")
        comparisons.append(Comparison(one, between, judged(between, one.by)))
    summaries = {
        arm.name: {metric: summary(values(arm.name, metric)) for metric in found[0][arm.name].metrics}
        for arm in arms
    }
    everything = tuple(result for one in found for result in one.values())
    return ClaimOutcome(claim, over, summaries, tuple(comparisons), everything, tuned)


def _measured(
    claim: Claim, arms: Sequence[Arm], seed: int, results: Results, steps: _Steps
) -> dict[str, Measured]:
    """The arms' results of one seed; its start and data are made if any of them is lacking."""
    experiment, found, made = claim.experiment, {}, None
    for arm in arms:
        mark = fingerprint(experiment, arm, seed)
        kept = results.get(arm.name, seed, mark)
        if kept is None:
            began = time.monotonic()
            if made is None:
                steps.next(f"seed {seed}: start and data")
                made = experiment.make(seed)
            steps.next(f"seed {seed}: {arm.name}")
            if arm.settings is None:
                trained = Trained(experiment.start(made))
            else:
                trained = experiment.train(made, arm.settings, seed)
            metrics = experiment.measure(made, trained.model, seed)
            kept = Measured(
                arm.name,
                seed,
                {name: [float(value) for value in values] for name, values in metrics.items()},
                {name: [list(point) for point in points] for name, points in trained.curves.items()},
                seconds=round(time.monotonic() - began, 2),
                library=library(),
            )
            results.put(kept, mark)
        steps.finished()
        found[arm.name] = kept
    return found


def _candidates(arm: Arm) -> list[Arm]:
    """An arm for every combination of the grid's values; none for an arm without a grid."""
    combinations = itertools.product(*arm.grid.values()) if arm.grid else ()
    return [
        Arm(f"{arm.name}-candidate{i}", {**(arm.settings or {}), **dict(zip(arm.grid, values, strict=True))})
        for i, values in enumerate(combinations)
    ]


def _tuned(claim: Claim, results: Results, steps: _Steps) -> tuple[Tuned, ...]:
    """Each arm with a grid for itself, by the metric of the first expectation, in its direction."""
    goal = claim.expected[0]
    grids = {arm.name: _candidates(arm) for arm in claim.arms if arm.grid}
    everything = [one for candidates in grids.values() for one in candidates]
    by_seed = [_measured(claim, everything, seed, results, steps) for seed in claim.tuning_seeds]
    found = []
    for name, candidates in grids.items():
        means = [fmean(fmean(one[arm.name].metrics[goal.metric]) for one in by_seed) for arm in candidates]
        best = means.index((max if goal.direction == "higher" else min)(means))
        scores = tuple((arm.settings or {}, mean) for arm, mean in zip(candidates, means, strict=True))
        found.append(Tuned(name, goal.metric, scores, scores[best][0]))
    return tuple(found)


def _check(check: Check, results: Results, seeds: int | None, steps: _Steps) -> CheckOutcome:
    over, found = _judged_seeds(check, seeds), []
    for seed in over:
        mark = fingerprint(check, None, seed)
        kept = results.get("check", seed, mark)
        if kept is None:
            steps.next(f"seed {seed}: check")
            began = time.monotonic()
            details = [asdict(number) for number in check.run(seed)]
            seconds = round(time.monotonic() - began, 2)
            kept = Measured("check", seed, {}, details=details, seconds=seconds, library=library())
            results.put(kept, mark)
        steps.finished()
        found.append(kept)
    numbers = tuple(tuple(_number(**one) for one in result.details) for result in found)
    return CheckOutcome(check, over, numbers, tuple(found))


def _number(what: str, value: float | None, low: float | None, high: float | None) -> Number:
    """A number of a check out of JSON, where what is not finite is None."""
    return Number(
        what,
        math.nan if value is None else value,
        -math.inf if low is None else low,
        math.inf if high is None else high,
    )
