"""Estimates with intervals. Every measurement here is a mean over prompts drawn independently."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.errors import PreferoError


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``: covers the true value in the share ``confidence`` of all cases."""

    low: float
    high: float
    confidence: float = 0.95

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over ``count`` prompts and its interval."""

    value: float
    interval: Interval
    count: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(share: float, count: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a mean of ``count`` numbers between 0 and 1.

    For numbers that are 0 or 1 this is Wilson (1927). Numbers in between (ties counted ½) vary less than
    0-or-1 numbers of the same mean, so that the interval is then wider than it need be, never too narrow. It
    stays within 0 and 1 and has a width when the share is 0 or 1.
    """
    _check(count, 1, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not put a share of 0 or 1 outside.
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), confidence)


def mean(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean and its normal interval, mean ± z · s/√n: for some dozens of values or more.

    For two models on the same prompts, take the mean of the differences prompt by prompt: what the prompts
    have in common then drops out.
    """
    _check(len(values), 2, confidence)
    value = fmean(values)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stdev(values) / math.sqrt(len(values))
    return Mean(value, Interval(value - half, value + half, confidence), len(values))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic over ``count`` prompts, which are drawn again with replacement.

    For what is no mean: a ratio, a fitted number, a quantile. ``statistic`` gets the places of the prompts
    drawn. Efron, 1979; of some dozens of prompts or more.
    """
    _check(count, 2, confidence)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(low), float(high), confidence)


def _check(count: int, least: int, confidence: float) -> None:
    if count < least:
        raise PreferoError(f"an interval needs at least {least} values; got {count}.")
    if not 0 < confidence < 1:
        raise PreferoError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95.")
