"""Reward against divergence: what a method gains, and how far it moves the model for it.

The comparison at matched divergence that Gao et al. (2023, "Scaling laws for reward model overoptimization")
and Rafailov et al. (2023, figure 2) make.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from prefero.evaluate.intervals import Mean


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One trained policy: its ``kl`` to the start model in nats a response, and its ``reward``."""

    name: str
    kl: Mean
    reward: Mean

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def frontier(points: Iterable[FrontierPoint]) -> list[FrontierPoint]:
    """The points that no other one beats in reward at an equal or smaller divergence, by divergence.

    Means decide; whether two neighbours really differ is for their intervals to say.
    """
    best: list[FrontierPoint] = []
    for point in sorted(points, key=lambda point: (point.kl.value, -point.reward.value)):
        if not best or point.reward.value > best[-1].reward.value:
            best.append(point)
    return best


@dataclass(frozen=True, slots=True)
class Dominated:
    """A point that ``by`` beats: no smaller reward at no larger divergence, and one of the two better.

    ``surely`` if both intervals lie apart; otherwise the difference may be chance.
    """

    point: FrontierPoint
    by: FrontierPoint
    surely: bool


def dominated(points: Iterable[FrontierPoint]) -> list[Dominated]:
    """The points that are beaten, each with the one that beats it: surely if any does, of several the one
    with the highest reward."""
    given = list(points)
    found = []
    for point in given:
        beaten = [Dominated(point, other, _surely(other, point)) for other in given if _beats(other, point)]
        if beaten:
            found.append(max(beaten, key=lambda one: (one.surely, one.by.reward.value)))
    return found


def _beats(first: FrontierPoint, second: FrontierPoint) -> bool:
    ours = (first.reward.value, -first.kl.value)
    theirs = (second.reward.value, -second.kl.value)
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def _surely(first: FrontierPoint, second: FrontierPoint) -> bool:
    return (
        first.reward.interval.low > second.reward.interval.high
        and first.kl.interval.high < second.kl.interval.low
    )
