"""A test for a turning point: quality turns while another measure keeps its direction.

Shi et al., 2024, arXiv 2410.11677: win rates over the chosen responses' likelihood are fitted better by a
parabola than by a line, so the highest likelihood is not the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefero.errors import PreferoError


@dataclass(frozen=True, slots=True)
class TurningPoint:
    """The root mean squared errors of the best line and the best parabola, and where the parabola has its
    maximum: None if it has none between the smallest and the largest value."""

    linear_error: float
    quadratic_error: float
    at: float | None


def turning_point(values: Sequence[float], quality: Sequence[float]) -> TurningPoint:
    """Line and parabola through what was measured at several checkpoints or runs, such as the mean
    log-probability of chosen responses and the win rate.

    A parabola always fits at least as well; what tells is by how much, and a maximum inside.

    Raises:
        PreferoError: there are fewer than four measurements, or they all have the same value.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(quality, dtype=float)
    if len(x) != len(y) or len(x) < 4:
        raise PreferoError(
            f"a turning point needs at least four values and as many qualities; got {len(x)} and {len(y)}"
        )
    if np.ptp(x) == 0:
        raise PreferoError(f"a turning point needs different values; all are {x[0]:g}")
    line, parabola = (np.polyfit(x - x.mean(), y, degree) for degree in (1, 2))
    errors = [float(np.sqrt(np.mean((np.polyval(fit, x - x.mean()) - y) ** 2))) for fit in (line, parabola)]
    curvature, slope, _ = (float(coefficient) for coefficient in parabola)
    peak = float(x.mean()) - slope / (2 * curvature) if curvature < 0 else None
    inside = peak is not None and x.min() < peak < x.max()
    return TurningPoint(errors[0], errors[1], peak if inside else None)
