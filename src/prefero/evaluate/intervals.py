"""Estimates with intervals, over prompts or records drawn independently."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
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
    """A mean (or share) over ``count`` prompts (or records) and its interval."""

    value: float
    interval: Interval
    count: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(share: float, count: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (1927) for a mean of ``count`` numbers between 0 and 1; for numbers other than
    0 and 1 it is wider than necessary. It has a width even where the share is 0 or 1."""
    _check(count, 1, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not put a share of 0 or 1 outside.
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), confidence)


def mean(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean and its normal interval, mean ± z · s/√n: for some dozens of values or more. To compare two
    models on the same prompts, take the mean of the differences prompt by prompt."""
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
    """The percentile interval of a statistic (a ratio, a quantile) over ``count`` prompts, resampled with
    replacement. ``statistic`` gets the indices of the prompts drawn. Efron, 1979; for some dozens of
    prompts."""
    _check(count, 2, confidence)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(low), float(high), confidence)


def share(happened: Sequence[bool], confidence: float = 0.95) -> Mean:
    """The share of the records in which something happened (attack success rate), with Wilson's interval."""
    if not happened:
        raise PreferoError("a share needs at least one record; got none.")
    value = sum(map(bool, happened)) / len(happened)
    return Mean(value, wilson(value, len(happened), confidence), len(happened))


def shares_by(
    group: Sequence[Hashable], happened: Sequence[bool], confidence: float = 0.95
) -> dict[Hashable, Mean]:
    """The share in each group (topic, style, source), in the order in which groups first occur."""
    members: dict[Hashable, list[bool]] = {}
    for name, did in zip(group, happened, strict=True):
        members.setdefault(name, []).append(did)
    return {name: share(each, confidence) for name, each in members.items()}


def _check(count: int, least: int, confidence: float) -> None:
    if count < least:
        raise PreferoError(f"an interval needs at least {least} values; got {count}.")
    if not 0 < confidence < 1:
        raise PreferoError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95.")
