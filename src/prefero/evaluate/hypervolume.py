"""Several objectives at once: which policies are worth having, and how good a set of them is.

Larger is better in every objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from prefero.errors import PreferoError

Point = tuple[float, ...]


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether ``first`` is at least as good in every objective and better in one."""
    pairs = list(zip(first, second, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """The places of the points that no other one dominates, in their order; of equal points the first."""
    given = _points(points)
    return [
        place
        for place, point in enumerate(given)
        if point not in given[:place] and not any(dominates(other, point) for other in given)
    ]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume that the points dominate above ``reference``: Zitzler and Thiele, 1999.

    Exact in any number of objectives, by slices along one objective after the other (While et al., 2006, "A
    faster algorithm for calculating hypervolume"): for thousands of points in two objectives, hundreds in
    three, dozens in five. A point that is not above the reference in every objective adds nothing.

    Raises:
        PreferoError: points and reference of different numbers of objectives.
    """
    floor = tuple(map(float, reference))
    above = []
    for place, point in enumerate(_points(points)):
        if len(point) != len(floor):
            raise PreferoError(
                f"point {place + 1} has {len(point)} objectives, the reference point {len(floor)}."
            )
        if all(value > least for value, least in zip(point, floor, strict=True)):
            above.append(tuple(value - least for value, least in zip(point, floor, strict=True)))
    return _volume(above)


def sparsity(points: Sequence[Sequence[float]]) -> float:
    """How far apart the points of a front lie: over objectives, the sum of squared gaps between neighbours,
    over the number of points less one; 0 for fewer than two points. Xu et al., 2020, ICML, "Prediction-guided
    multi-objective reinforcement learning"."""
    given = _points(points)
    if len(given) < 2:
        return 0.0
    total = 0.0
    for objective in zip(*given, strict=True):
        ranked = sorted(objective)
        total += sum((high - low) ** 2 for low, high in pairwise(ranked))
    return total / (len(given) - 1)


def _points(points: Sequence[Sequence[float]]) -> list[Point]:
    given = [tuple(map(float, point)) for point in points]
    for place, point in enumerate(given):
        if len(point) != len(given[0]):
            raise PreferoError(
                f"point {place + 1} has {len(point)} objectives, the first {len(given[0])}; expected equally "
                "many."
            )
        if any(value != value for value in point):
            raise PreferoError(f"point {place + 1} holds a value that is not a number.")
    return given


def _volume(points: Sequence[Point]) -> float:
    """Above the origin: slices along the last objective, each as thick as the way to the next point."""
    front = [points[place] for place in non_dominated(points)]
    if not front:
        return 0.0
    if len(front[0]) == 1:
        return front[0][0]
    front.sort(key=lambda point: point[-1], reverse=True)
    below = [*(point[-1] for point in front[1:]), 0.0]
    return math.fsum(
        (point[-1] - floor) * _volume([other[:-1] for other in front[: place + 1]])
        for place, (point, floor) in enumerate(zip(front, below, strict=True))
        if point[-1] > floor
    )
