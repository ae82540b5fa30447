"""Pareto fronts: policies that no other policy beats in every objective, and how good a set of them is.

Larger is better in all objectives. Reward against divergence (:func:`frontier`, :func:`dominated`) is
compared at matched divergence as in Gao et al. (2023, "Scaling laws for reward model overoptimization").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean

Point = tuple[float, ...]


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether ``first`` is at least as good in every objective and better in one."""
    pairs = list(zip(first, second, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """The indices of the points that no other point dominates, in their order; of equal points the first."""
    given = _points(points)
    return [
        index
        for index, point in enumerate(given)
        if point not in given[:index] and not any(dominates(other, point) for other in given)
    ]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume that the points dominate above ``reference``: Zitzler and Thiele, 1999. Exact, by slices
    along one objective after the other (While et al., 2006): for thousands of points in two objectives,
    dozens in five.

    Raises:
        PreferoError: points and reference of different numbers of objectives.
    """
    floor = tuple(map(float, reference))
    above = []
    for index, point in enumerate(_points(points)):
        if len(point) != len(floor):
            raise PreferoError(
                f"point {index + 1} has {len(point)} objectives, the reference point {len(floor)}."
            )
        if all(value > least for value, least in zip(point, floor, strict=True)):
            above.append(tuple(value - least for value, least in zip(point, floor, strict=True)))
    return _volume(above)


def sparsity(points: Sequence[Sequence[float]]) -> float:
    """The sparsity of a front: squared gaps between neighbours, summed over objectives, over the number of
    points minus one; 0 for fewer than two. Xu et al., 2020, ICML."""
    given = _points(points)
    if len(given) < 2:
        return 0.0
    ranked = map(sorted, zip(*given, strict=True))
    gaps = [high - low for objective in ranked for low, high in pairwise(objective)]
    return sum(gap**2 for gap in gaps) / (len(given) - 1)


def _points(points: Sequence[Sequence[float]]) -> list[Point]:
    given = [tuple(map(float, point)) for point in points]
    for index, point in enumerate(given):
        if len(point) != len(given[0]):
            raise PreferoError(
                f"point {index + 1} has {len(point)} objectives, the first {len(given[0])}; expected as many."
            )
        if any(math.isnan(value) for value in point):
            raise PreferoError(f"point {index + 1} holds a value that is not a number.")
    return given


def _volume(points: Sequence[Point]) -> float:
    """The volume above the origin, in slices along the last objective."""
    front = [points[index] for index in non_dominated(points)]
    if not front:
        return 0.0
    if len(front[0]) == 1:
        return front[0][0]
    front.sort(key=lambda point: point[-1], reverse=True)
    below = [*(point[-1] for point in front[1:]), 0.0]
    return math.fsum(
        (point[-1] - floor) * _volume([other[:-1] for other in front[: index + 1]])
        for index, (point, floor) in enumerate(zip(front, below, strict=True))
        if point[-1] > floor
    )


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One trained policy: its ``kl`` to the start model in nats a response, and its ``reward``."""

    name: str
    kl: Mean
    reward: Mean

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _measured(points: Iterable[FrontierPoint]) -> list[FrontierPoint]:
    given = list(points)
    for point in given:
        if math.isnan(point.kl.value) or math.isnan(point.reward.value):
            raise PreferoError(
                f"{point.name} has a divergence of {point.kl.value} and a reward of {point.reward.value}; "
                "expected numbers: leave the policy out."
            )
    return given


def frontier(points: Iterable[FrontierPoint]) -> list[FrontierPoint]:
    """The points that no other beats in mean reward at an equal or smaller divergence, by divergence. Raises
    :class:`PreferoError` for a value that is not a number."""
    best: list[FrontierPoint] = []
    for point in sorted(_measured(points), key=lambda point: (point.kl.value, -point.reward.value)):
        if not best or point.reward.value > best[-1].reward.value:
            best.append(point)
    return best


@dataclass(frozen=True, slots=True)
class Dominated:
    """A point that ``by`` beats: no smaller reward at no larger divergence, and one of the two better;
    ``surely`` if the intervals of both do not overlap."""

    point: FrontierPoint
    by: FrontierPoint
    surely: bool


def dominated(points: Iterable[FrontierPoint]) -> list[Dominated]:
    """The beaten points, each with a point that beats it: surely if any does, else the highest reward. Raises
    :class:`PreferoError` for a value that is not a number."""
    given = _measured(points)
    beaten = []
    for point in given:
        rivals = [Dominated(point, other, _surely(other, point)) for other in given if _beats(other, point)]
        if rivals:
            beaten.append(max(rivals, key=lambda rival: (rival.surely, rival.by.reward.value)))
    return beaten


def _beats(first: FrontierPoint, second: FrontierPoint) -> bool:
    return dominates((first.reward.value, -first.kl.value), (second.reward.value, -second.kl.value))


def _surely(first: FrontierPoint, second: FrontierPoint) -> bool:
    return (
        first.reward.interval.low > second.reward.interval.high
        and first.kl.interval.high < second.kl.interval.low
    )
