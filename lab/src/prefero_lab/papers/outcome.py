"""What became of evidence: the numbers of all arms and seeds, and the verdicts that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefero.errors import PreferoError
from prefero_lab.papers.measure import Task
from prefero_lab.papers.paper import Arm, Check, Claim, Expectation, Number, Paper
from prefero_lab.papers.results import Measured, library
from prefero_lab.papers.verdicts import (
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

ResultOf = Callable[[Task], Measured]


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
        """What it took of one core to measure, whenever that was."""
        return sum(result.seconds for one in self.evidence for result in one.results)

    @property
    def outdated(self) -> int:
        """How many results are of a time when the code of the library or the worlds was another."""
        return sum(result.library != library() for one in self.evidence for result in one.results)


def claim_outcome(
    claim: Claim, arms: Sequence[Arm], seeds: Sequence[int], result: ResultOf, tuned: Sequence[Tuned] = ()
) -> ClaimOutcome:
    """The claim judged on what its arms came to; ``arms`` are its own, with the settings that were measured.

    Raises:
        PreferoError: it expects something of a metric that the experiment does not give.
    """
    found = [{arm.name: result(Task(claim.experiment, arm, seed)) for arm in arms} for seed in seeds]

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
    everything = tuple(measured for one in found for measured in one.values())
    return ClaimOutcome(claim, tuple(seeds), summaries, tuple(comparisons), everything, tuple(tuned))


def check_outcome(check: Check, seeds: Sequence[int], result: ResultOf) -> CheckOutcome:
    found = tuple(result(Task(check, None, seed)) for seed in seeds)
    numbers = tuple(tuple(_number(**one) for one in measured.details) for measured in found)
    return CheckOutcome(check, tuple(seeds), numbers, found)


def _number(what: str, value: float | None, low: float | None, high: float | None) -> Number:
    """A number of a check out of JSON, where what is not finite is None."""
    return Number(
        what,
        math.nan if value is None else value,
        -math.inf if low is None else low,
        math.inf if high is None else high,
    )
