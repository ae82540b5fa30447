"""Labels as people give them: wrong, undecided, by several annotators, by people of different tastes.

Each of these takes the pairs of any text world, as :meth:`~prefero.demo.text.TextWorld.preference_pairs`
makes them, and relabels them: the texts stay, the sides may change, and rows get the columns that methods
read. They can follow one another::

    rows = Flips(0.2)(world, Ties(0.1)(world, rows, seed), seed)

A pair's scores are those that its rows came with, and go with the texts. All that is random follows from the
seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prefero.errors import PreferoError

if TYPE_CHECKING:
    from prefero.demo.text import TextWorld

Row = dict[str, Any]


class Named(Protocol):
    """A world that is only known by its name, which the random numbers follow from."""

    @property
    def name(self) -> str: ...


class Labels(Protocol):
    """Relabels the pairs of a world."""

    def __call__(self, world: TextWorld, rows: Sequence[Row], seed: int) -> list[Row]: ...


@dataclass(frozen=True)
class Flips:
    """A share of the labels is wrong: in that many rows, drawn one by one, the two sides are exchanged.

    Rows get ``flip_rate``, which methods may know, and ``flipped``, which none reads. ``near`` above 0 makes
    pairs with scores close to each other flip more often, at the same mean rate: the odds of a flip fall by
    half where the gap grows by ``near``.

    Raises:
        PreferoError: the rate is not from 0 to 1.
    """

    rate: float
    near: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise PreferoError(f"flip rate {self.rate}; expected a share from 0 to 1")

    def __call__(self, world: Named, rows: Sequence[Row], seed: int) -> list[Row]:
        rng = random.Random(f"{world.name} flips {seed}")
        found = []
        for row, rate in zip(rows, self._rates(rows), strict=True):
            flipped = rng.random() < rate
            found.append({**(exchanged(row) if flipped else row), "flip_rate": rate, "flipped": flipped})
        return found

    def _rates(self, rows: Sequence[Row]) -> list[float]:
        if not self.near or self.rate in (0, 1) or not rows:
            return [self.rate] * len(rows)
        halvings = [abs(gap(row)) / self.near for row in rows]

        def rates(shift: float) -> list[float]:
            return [logistic(shift - math.log(2) * halving) for halving in halvings]

        low, high = -50.0, 50.0 + max(halvings)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(rates(middle)) < self.rate * len(rows) else (low, middle)
        return rates(low)


@dataclass(frozen=True)
class Ties:
    """Two texts whose scores differ by ``within`` or less are a tie: ``tie`` says so, and their sides are
    tossed. Other rows keep their label."""

    within: float

    def __call__(self, world: TextWorld, rows: Sequence[Row], seed: int) -> list[Row]:
        rng = random.Random(f"{world.name} ties {seed}")
        found = []
        for row in rows:
            tie = abs(gap(row)) <= self.within
            found.append({**(exchanged(row) if tie and rng.random() < 0.5 else row), "tie": tie})
        return found


@dataclass(frozen=True)
class Panel:
    """Several annotators of unlike care, ``scales``: each prefers the better text with probability
    σ(scale · gap), so that 0 tosses a coin. The chosen side is the majority's (tossed if they are even), and
    ``preference`` the share of them that prefers it; ``votes``, which no method reads, has 1 for each of
    them who does."""

    scales: tuple[float, ...]

    def __call__(self, world: TextWorld, rows: Sequence[Row], seed: int) -> list[Row]:
        rng = random.Random(f"{world.name} panel {seed}")
        found = []
        for row in rows:
            votes = [rng.random() < logistic(scale * gap(row)) for scale in self.scales]
            share = sum(votes) / len(votes)
            other = share < 0.5 or (share == 0.5 and rng.random() < 0.5)
            own = [vote != other for vote in votes]
            labelled = exchanged(row) if other else dict(row)
            found.append(
                {**labelled, "preference": max(share, 1 - share), "votes": [int(vote) for vote in own]}
            )
        return found


@dataclass(frozen=True)
class Groups:
    """People of different tastes: row by row a group is drawn by ``shares`` (by default equal ones), and its
    taste (a name among the world's ``tastes``, None for gold) labels the pair, with the world's sureness or
    ``scale``. ``group`` counts from 0, in the order of the tastes; scores are those of the group.

    Raises:
        PreferoError: not as many shares as tastes, or shares that do not add up to 1.
    """

    tastes: tuple[str | None, ...]
    shares: tuple[float, ...] = ()
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.shares and (len(self.shares) != len(self.tastes) or not math.isclose(sum(self.shares), 1)):
            raise PreferoError(
                f"{len(self.tastes)} tastes have shares {self.shares}; expected one for each, 1 in all"
            )

    def __call__(self, world: TextWorld, rows: Sequence[Row], seed: int) -> list[Row]:
        rng = random.Random(f"{world.name} groups {seed}")
        judges = [world.judge(taste) for taste in self.tastes]
        scale = world.label_scale if self.scale is None else self.scale
        found = []
        for row in rows:
            group = rng.choices(range(len(judges)), self.shares or None)[0]
            sides = {f"{side}_score": judges[group](row["prompt"], row[side]) for side in SIDES}
            scored = {**row, **sides, "group": group}
            found.append(scored if rng.random() < logistic(scale * gap(scored)) else exchanged(scored))
        return found


SIDES = ("chosen", "rejected")


def gap(row: Row) -> float:
    """The chosen text's score less the rejected one's."""
    return float(row["chosen_score"] - row["rejected_score"])


def exchanged(row: Row) -> Row:
    """The row with its sides exchanged, and all that is told of one side with them."""
    names = {"chosen": "rejected", "rejected": "chosen"}

    def other(name: str) -> str:
        side, mark, rest = name.partition("_")
        return names.get(side, side) + mark + rest

    return {other(name): value for name, value in row.items()}


def logistic(x: float) -> float:
    """σ(x), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
