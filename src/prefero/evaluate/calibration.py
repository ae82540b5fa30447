"""Calibration: the distance between the probabilities of a judge or a policy and the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlog1py, xlogy

from prefero.errors import PreferoError

Binning = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Bin:
    """The mean probability and the mean outcome of ``count`` predictions from ``low`` to ``high``."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float

    @property
    def gap(self) -> float:
        return abs(self.predicted - self.observed)


@dataclass(frozen=True, slots=True)
class Calibration:
    """``expected_error`` (ECE) and ``largest_error`` (MCE) are of the gaps of the bins; ``brier`` is the mean
    squared error, ``log_loss`` in nats. ``curve`` has no empty bins."""

    expected_error: float
    largest_error: float
    brier: float
    log_loss: float
    curve: tuple[Bin, ...]
    count: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def calibration(
    probabilities: Sequence[float],
    outcomes: Sequence[float],
    *,
    bins: int = 15,
    binning: Binning = "width",
) -> Calibration:
    """The distance between predicted probabilities and outcomes (1 if it happened, 0 if not, ½ for a tie).

    Bins are of equal width in [0, 1] (Guo et al., 2017, arXiv 1706.04599: 15 of them, closed above) or of
    equal mass (Nguyen and O'Connor, 2015, arXiv 1508.05154), where equal probabilities stay in one bin. Their
    errors are biased upwards for few predictions; the Brier score is not.

    Raises:
        PreferoError: the two are of different lengths or empty, or a number is outside [0, 1].
    """
    predicted, observed = (np.asarray(values, np.float64) for values in (probabilities, outcomes))
    if predicted.shape != observed.shape or not len(predicted):
        raise PreferoError(
            f"a calibration needs one outcome per probability, at least one; got {len(predicted)} "
            f"probabilities and {len(observed)} outcomes."
        )
    for name, values in (("probability", predicted), ("outcome", observed)):
        wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(wrong):
            raise PreferoError(f"{name} {wrong[0] + 1} is {values[wrong[0]]}; expected a number from 0 to 1.")
    if bins < 1:
        raise PreferoError(f"bins is {bins}; expected at least 1.")
    edges = np.linspace(0, 1, bins + 1) if binning == "width" else _equal_mass(predicted, bins)
    bin_of = np.clip(np.searchsorted(edges, predicted, side="left") - 1, 0, len(edges) - 2)
    curve = tuple(
        Bin(
            float(edges[index]),
            float(edges[index + 1]),
            int(inside.sum()),
            float(predicted[inside].mean()),
            float(observed[inside].mean()),
        )
        for index in range(len(edges) - 1)
        if (inside := bin_of == index).any()
    )
    return Calibration(
        sum(point.count * point.gap for point in curve) / len(predicted),
        max(point.gap for point in curve),
        float(((predicted - observed) ** 2).mean()),
        float(-(xlogy(observed, predicted) + xlog1py(1 - observed, -predicted)).mean()),
        curve,
        len(predicted),
    )


def pair_calibration(margins: Sequence[float], *, bins: int = 15, binning: Binning = "width") -> Calibration:
    """The calibration of Bradley and Terry's probability, from the margins of rewards, chosen minus rejected:
    the response with the higher reward is chosen with probability σ(|margin|) ≥ ½; a margin of 0 is a tie."""
    values = np.asarray(margins, np.float64)
    return calibration(
        expit(np.abs(values)).tolist(),
        (0.5 + np.sign(values) / 2).tolist(),
        bins=bins,
        binning=binning,
    )


def _equal_mass(predicted: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges at the quantiles, from 0 to 1, each once."""
    ranked = np.sort(predicted)
    ends = [ranked[-(-len(ranked) * part // bins) - 1] for part in range(1, bins)]
    return np.unique(np.concatenate([[0.0], [end for end in ends if 0 < end < 1], [1.0]]))
