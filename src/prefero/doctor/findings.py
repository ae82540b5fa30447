"""What a check has to say: a number with its interval, why it matters, what to do, how much is at stake."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prefero.evaluate.intervals import Interval, wilson

Level = Literal["act", "look", "fine"]
"""``act``: mend it before training. ``look``: see whether it is meant. ``fine``: looked at, nothing found."""

LEVELS: tuple[Level, ...] = ("act", "look", "fine")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number and its 95 % interval. ``unit`` is ``share`` for what lies between 0 and 1, else a word.

    ``count`` out of ``of`` is what was counted, where something was. The interval speaks of the population
    that the rows were drawn from; a count itself is exact unless its finding says that rows were sampled.
    """

    name: str
    value: float
    interval: Interval | None = None
    unit: str = "share"
    count: int | None = None
    of: int | None = None

    @classmethod
    def share(cls, name: str, count: int, of: int) -> Measure:
        """A share with Wilson's interval."""
        return cls(name, count / of, wilson(count / of, of), "share", count, of)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do, and the command that does it, if one does."""

    what: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Specimen:
    """Rows to look at: where they stand, and their texts by name."""

    where: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    ``stake`` is the share of the training signal that what was found could mislead, 0 to 1: findings of one
    level stand in its order. ``measures`` hold the finding's own number first. ``threshold`` says in words
    from where on the check speaks up. ``sample`` says what was looked at where it was not everything.
    ``rows`` are the positions of the examples that ``--without`` its key leaves out.
    """

    key: str
    title: str
    level: Level
    message: str
    measures: tuple[Measure, ...]
    stake: float
    why: str = ""
    papers: tuple[str, ...] = ()
    threshold: str = ""
    remedies: tuple[Remedy, ...] = ()
    specimens: tuple[Specimen, ...] = ()
    sample: str = ""
    rows: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Unasked:
    """A check that could not be made, and what it would need."""

    title: str
    reason: str


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What has to be acted on first, within a level the largest stake first."""
    return tuple(sorted(findings, key=lambda one: (LEVELS.index(one.level), -one.stake)))


def level_of(measure: Measure, look: float, act: float) -> Level:
    """``act`` where the whole interval lies at ``act`` or above, ``look`` where the value does ``look``."""
    low = measure.interval.low if measure.interval else measure.value
    if low >= act:
        return "act"
    return "look" if measure.value >= look and measure.value > 0 else "fine"
