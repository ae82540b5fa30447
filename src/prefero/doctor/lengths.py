"""How long the two sides are, and how far length alone says which is the better one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from prefero.doctor.findings import Measure
from prefero.evaluate.intervals import Interval, wilson

Array = NDArray[np.float64]
Z = 1.959963984540054
"""Standard deviations of a normal 95 % interval to either side."""


@dataclass(frozen=True, slots=True)
class LengthBias:
    """``longer``: share of pairs whose chosen response is the longer one, ties counted half. ``area``: the
    probability that any chosen response is longer than any rejected one. ``twice``: the probability that a
    response twice as long as the other is the chosen one, by a logistic regression on the log of the ratio.
    """

    longer: Measure
    area: Measure
    twice: Measure


def length_bias(chosen: Sequence[int], rejected: Sequence[int]) -> LengthBias:
    """Of pairs, by their lengths in any unit."""
    better, worse = np.asarray(chosen, float), np.asarray(rejected, float)
    count = len(better)
    longer = float(((better > worse) + 0.5 * (better == worse)).mean())
    return LengthBias(
        Measure("chosen response is the longer one", longer, wilson(longer, count), of=count),
        area(better, worse, "any chosen response is longer than any rejected one"),
        _twice(np.log((better + 1) / (worse + 1))),
    )


def area(
    better: Float[np.ndarray, " pair"], worse: Float[np.ndarray, " pair"], name: str, *, paired: bool = True
) -> Measure:
    """The area under the ROC curve: how often a value of ``better`` exceeds one of ``worse``, ties half.

    The interval is DeLong's (1988); where the two are ``paired``, the covariance within pairs is in it
    (Obuchowski, 1997).
    """
    of_better = _placements(better, worse)
    of_worse = 1 - _placements(worse, better)
    value = float(of_better.mean())
    if paired:
        together = of_better + of_worse
        variance = together.var(ddof=1) / len(together) if len(together) > 1 else 0.25
    else:
        variance = sum(
            (side.var(ddof=1) / len(side) if len(side) > 1 else 0.25) for side in (of_better, of_worse)
        )
    half = Z * math.sqrt(float(variance))
    return Measure(name, value, Interval(max(0.0, value - half), min(1.0, value + half)), of=len(better))


def _placements(values: Array, among: Array) -> Array:
    """For each value the share of the others below it, ties half."""
    ordered = np.sort(among)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + upto) / 2 / len(among)


def _twice(ratio: Array) -> Measure:
    """P(chosen | twice as long), from a logistic regression without intercept of the label on the ratio."""
    slope, error = logistic_slope(ratio)
    at = [_logistic(math.log(2) * (slope + z * error)) for z in (-Z, 0, Z)]
    return Measure("response twice as long is the chosen one", at[1], Interval(at[0], at[2]), of=len(ratio))


def logistic_slope(x: Float[np.ndarray, " pair"]) -> tuple[float, float]:
    """b and its standard error, where the better side of a pair has P = σ(b x), x its lead in some value.

    A slope beyond ±50 standard deviations of x is cut there: the value then decides every pair.
    """
    scale = float(np.sqrt(np.mean(x * x)))
    if scale == 0:
        return 0.0, 0.0
    lead, slope = x / scale, 0.0
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(slope * lead, -60, 60)))
        information = float((chance * (1 - chance) * lead * lead).sum()) + 1e-9
        step = float(((1 - chance) * lead).sum()) / information
        slope = float(np.clip(slope + np.clip(step, -2, 2), -50, 50))
        if abs(step) < 1e-8:
            break
    return slope / scale, 1 / math.sqrt(information) / scale


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
