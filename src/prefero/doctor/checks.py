"""The interface of a check: it gets a :class:`Look` at the data and yields findings."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from prefero.data.examples import Response
from prefero.doctor.commands import Commands
from prefero.doctor.corpus import Corpus, prompt_text, response_text
from prefero.evaluate.intervals import Interval, wilson

if TYPE_CHECKING:
    from prefero.data.tokenize import TooLong
    from prefero.doctor.policy import Policy

T = TypeVar("T")

Level = Literal["act", "look", "fine"]
"""``act``: fix it before training. ``look``: check whether it is intended. ``fine``: nothing found."""

LEVELS: tuple[Level, ...] = ("act", "look", "fine")

FEW = 30
"""Rows below which a tendency, such as which side is the longer, is not told from chance."""

NEVER = math.inf
"""As the limit of a share: there is no share from which to act."""

SHOWN = 700
"""Characters of a text that a specimen shows."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number and its 95 % interval; ``count`` out of ``of`` rows, if rows were counted. ``unit`` is
    ``share`` for numbers between 0 and 1, else a word."""

    name: str
    value: float
    interval: Interval | None = None
    unit: str = "share"
    count: int | None = None
    of: int | None = None

    @property
    def low(self) -> float:
        """The lower end of the interval, or the value without one."""
        return self.interval.low if self.interval else self.value

    @property
    def high(self) -> float:
        return self.interval.high if self.interval else self.value

    @classmethod
    def share(cls, name: str, count: int, of: int) -> Measure:
        """A share with Wilson's interval."""
        return cls(name, count / of, wilson(count / of, of), "share", count, of)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A recommendation, and the command that carries it out, if there is one."""

    what: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Specimen:
    """A row to look at: its origin, and its texts by name."""

    where: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    ``stake`` is the share of the training signal that the fault could mislead, 0 to 1. ``measures`` begin
    with the main number. ``threshold`` says in words when the check reports a fault, ``sample`` what was
    examined if not everything. ``rows`` are the positions of the examples that ``--without`` this key
    removes.
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


@dataclass(frozen=True, slots=True)
class Unasked:
    """A check that was skipped, and what it would need."""

    title: str
    reason: str


def too_few(title: str, count: int, of: str) -> Unasked:
    """A tendency that is not looked at, because there are fewer than :data:`FEW` examples of it."""
    return Unasked(title, f"{count} {of} are too few to tell it from chance, which takes {FEW}")


@dataclass
class Look:
    """The data that a check examines, and the means to do it. ``max_length`` is in tokens, and ``too_long``
    says what becomes of rows with more. ``policy`` is the model to be aligned, if any. ``progress`` is called
    with the name of each stage. ``results`` are shared by several checks (:func:`shared`)."""

    corpus: Corpus
    commands: Commands
    held_out: Corpus | None = None
    max_length: int | None = None
    too_long: TooLong = "cut_response"
    seed: int = 0
    policy: Policy | None = None
    progress: Callable[[str], None] = lambda name: None
    results: dict[Callable[[Look], Any], Any] = field(default_factory=dict)

    def some(self, items: Sequence[T], most: int) -> Sequence[T]:
        """All items, or as many as ``most`` of them drawn at random, in their order."""
        if len(items) <= most:
            return items
        drawn = sorted(random.Random(self.seed).sample(range(len(items)), most))
        return [items[index] for index in drawn]

    def finding(
        self,
        key: str,
        title: str,
        share: Measure,
        message: str,
        *,
        limits: tuple[float, float],
        of: str = "rows",
        measures: Sequence[Measure] = (),
        stake: float | None = None,
        rows: Sequence[int] = (),
        specimens: Sequence[Specimen] | None = None,
        **texts: Any,
    ) -> Finding:
        """A finding about a share ``of`` something: to look at from the first of the ``limits``, to act on
        from the second. Its stake is the share, its specimens are some of the ``rows``, unless given."""
        return Finding(
            key,
            title,
            level_of(share, *limits),
            message,
            (share, *measures),
            stake=min(1.0, share.value) if stake is None else stake,
            threshold=_threshold(*limits, of),
            specimens=self.specimens(rows) if specimens is None else tuple(specimens),
            rows=tuple(rows),
            **texts,
        )

    def specimens(
        self, rows: Sequence[int], most: int = 3, *, beside: Mapping[int, int] = MappingProxyType({})
    ) -> tuple[Specimen, ...]:
        """Some of the rows, spread evenly over all of them; ``beside`` maps rows to other rows to mention."""
        spread = [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else rows
        specimens = []
        for row in spread:
            shown = specimen(self.corpus, row)
            if row in beside:
                shown = replace(shown, where=f"{shown.where}; as {self.corpus.origin(beside[row])}")
            specimens.append(shown)
        return tuple(specimens)


Check = Callable[[Look], Iterator[Finding | Unasked]]
"""A check yields findings, or what it would need; nothing where its question makes no sense."""


def shared(compute: Callable[[Look], T]) -> Callable[[Look], T]:
    """Decorate a computation that several checks use: it runs once per :class:`Look`."""

    @wraps(compute)
    def once(look: Look) -> T:
        if compute not in look.results:
            look.results[compute] = compute(look)
        return look.results[compute]

    return once


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings to act on first; within a level the largest stake first."""
    return tuple(sorted(findings, key=lambda finding: (LEVELS.index(finding.level), -finding.stake)))


def level_of(measure: Measure, look: float, act: float) -> Level:
    """``act`` if the whole interval is at ``act`` or above, ``look`` if the value is at ``look`` or above."""
    if measure.value > 0 and measure.low >= act:
        return "act"
    return "look" if measure.value >= look and measure.value > 0 else "fine"


def _threshold(look: float, act: float, of: str) -> str:
    first = f"{100 * look:g} % of the {of}" if look else "any"
    if not 0 < act <= 1:
        return first
    return f"{first}; to act on from {100 * act:g} %" + ("" if look else f" of the {of}")


def specimen(corpus: Corpus, row: int) -> Specimen:
    """A row with its texts: the end of a long prompt, and the beginning of long responses."""
    example = corpus.examples[row]
    prompt = prompt_text(example.prompt)
    texts = [("prompt", prompt if len(prompt) <= SHOWN else "…" + prompt[-SHOWN:].lstrip())]
    for response in example.responses:
        text = response_text(response)
        texts.append((_label(response), text if len(text) <= SHOWN else text[:SHOWN].rstrip() + "…"))
    return Specimen(corpus.origin(row), tuple(texts))


def _label(response: Response) -> str:
    if response.role:
        return response.role
    known = [
        f"{name} {value:g}" for name, value in response.columns.items() if isinstance(value, int | float)
    ]
    return ", ".join(known) or "response"
