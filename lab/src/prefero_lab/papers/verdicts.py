"""When a claim holds: the rule, for every claim the same.

The unit of replication is the seed, which decides on everything random: data, start model where the
experiment has one a seed, order, noise, prompts. For each seed the two arms are compared prompt by prompt
under common noise; the mean of these differences is one number a seed, and Student's t gives a 95 % interval
for the mean over seeds. Three seeds can agree by luck, so the standard error is never taken to be less than
what the spread over prompts alone makes it: that can only widen the interval.

With the smallest difference that would do, ``by`` (:class:`~prefero_lab.papers.paper.Expectation`), a
comparison

- *does not hold here* if the whole interval lies below ``by``,
- *holds* if the whole interval lies above 0 (above ``by``, where that is below 0) and reaches ``by``,
- is *too small to tell* otherwise, and always with one seed.

A paper's verdict is that of its weakest comparison that counts. All must hold together, so none needs a
correction for their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from scipy.special import stdtrit

from prefero.errors import PreferoError

Verdict = Literal["holds", "does not hold here", "too small to tell"]

HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold here"
UNCLEAR: Verdict = "too small to tell"

Values = Sequence[float]
"""One number a prompt."""


@dataclass(frozen=True)
class Difference:
    """Advantage of the treatment over seeds; ``seeds`` has an entry per seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


def difference(
    treatment: Sequence[Values], baseline: Sequence[Values], *, lower: bool = False, confidence: float = 0.95
) -> Difference:
    """Treatment minus baseline (if ``lower`` is better, baseline minus treatment), seed by seed, prompt by
    prompt.

    Raises:
        PreferoError: the two were not measured on the same seeds and prompts.
    """
    if len(treatment) != len(baseline) or any(
        len(a) != len(b) for a, b in zip(treatment, baseline, strict=False)
    ):
        raise PreferoError("arms are compared seed by seed, prompt by prompt: they need as many of both")
    sign = -1.0 if lower else 1.0
    pairs = [
        [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(treatment, baseline, strict=True)
    ]
    means = tuple(fmean(one) for one in pairs)
    value = fmean(means)
    if len(means) < 2:
        return Difference(value, -math.inf, math.inf, means)
    within = fmean(_variance(one) / len(one) if len(one) > 1 else 0.0 for one in pairs)
    error = math.sqrt(max(_variance(means), within) / len(means))
    half = float(stdtrit(len(means) - 1, (1 + confidence) / 2)) * error
    return Difference(value, value - half, value + half, means)


def judged(found: Difference, by: float = 0.0) -> Verdict:
    """The verdict on one comparison. Numbers that are not finite tell nothing."""
    if not math.isfinite(found.value) or math.isnan(found.low) or math.isnan(found.high):
        return UNCLEAR
    if found.high < by:
        return FAILS
    return HOLDS if found.low > min(by, 0.0) else UNCLEAR


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several comparisons that must all hold."""
    there = set(verdicts)
    return next((one for one in (FAILS, UNCLEAR) if one in there), HOLDS)


@dataclass(frozen=True)
class Summary:
    """A metric of one arm: its mean over seeds and their standard deviation (NaN for one seed)."""

    mean: float
    spread: float
    seeds: tuple[float, ...]


def summary(values: Sequence[Values]) -> Summary:
    means = tuple(fmean(one) for one in values)
    return Summary(fmean(means), math.sqrt(_variance(means)) if len(means) > 1 else math.nan, means)


def _variance(values: Values) -> float:
    """Variance of a sample; NaN where a value is not finite."""
    return variance(values) if all(map(math.isfinite, values)) else math.nan
