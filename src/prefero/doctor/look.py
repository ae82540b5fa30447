"""What a check looks at: the data, what they are measured with, and what several checks need."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from prefero.data.examples import Response
from prefero.doctor.agreement import Agreement, agreement
from prefero.doctor.commands import Commands
from prefero.doctor.corpus import Corpus, Pair, as_text, said, same
from prefero.doctor.findings import Finding, Specimen, Unasked
from prefero.doctor.probe import MOST, SHORTEST, Probe, probe
from prefero.doctor.repeats import Judgement, Repeats, find, judgements

if TYPE_CHECKING:
    from prefero.doctor.policy import Policy

T = TypeVar("T")

SHOWN = 700
"""Characters of a text that a specimen shows."""


@dataclass
class Look:
    """``held_out`` are the evaluation data, if any. ``max_length`` is in tokens. ``policy`` is the model that
    is to be aligned, if it was named."""

    corpus: Corpus
    commands: Commands
    held_out: Corpus | None = None
    max_length: int | None = None
    seed: int = 0
    policy: Policy | None = None

    @cached_property
    def judgements(self) -> list[Judgement]:
        return judgements(self.corpus)

    @cached_property
    def repeats(self) -> Repeats:
        return find(self.judgements)

    @cached_property
    def agreement(self) -> Agreement | None:
        """Of the annotators, where rows have the votes of several."""
        votes = self.corpus.votes
        return agreement(list(votes), list(votes.values()), seed=self.seed)

    @cached_property
    def distinct(self) -> list[Pair]:
        """The pairs without repetitions."""
        again = set(self.repeats.repeated)
        return [pair for pair in self.corpus.pairs if pair.row not in again]

    @cached_property
    def probe(self) -> Probe | None:
        """A classifier of the pairs' words, where there are pairs enough to test it on."""
        pairs = self.some(self.distinct, MOST)
        if len(pairs) < SHORTEST:
            return None
        return probe(
            [same(pair.prompt) for pair in pairs],
            [pair.chosen for pair in pairs],
            [pair.rejected for pair in pairs],
            seed=self.seed,
        )

    @property
    def probed(self) -> str:
        """What the classifier was made of, where it was not everything."""
        count = len(self.distinct)
        return f" On {MOST:,} of {count:,} pairs, drawn at random." if count > MOST else ""

    def some(self, things: Sequence[T], most: int) -> Sequence[T]:
        """All the things, or as many of them drawn at random, in their order."""
        if len(things) <= most:
            return things
        places = sorted(random.Random(self.seed).sample(range(len(things)), most))
        return [things[place] for place in places]

    def specimens(
        self, rows: Sequence[int], most: int = 3, *, beside: Mapping[int, int] = MappingProxyType({})
    ) -> tuple[Specimen, ...]:
        """Some of the rows, from all over them, with their texts; ``beside`` are rows to name along."""
        spread = [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else rows
        shown = [(specimen(self.corpus, row), beside.get(row)) for row in spread]
        return tuple(
            one if other is None else replace(one, where=f"{one.where}; as {self.corpus.origin(other)}")
            for one, other in shown
        )


def specimen(corpus: Corpus, row: int) -> Specimen:
    example = corpus.examples[row]
    texts = [("prompt", as_text(example.prompt), True)]
    texts += [(_called(response), said(response), False) for response in example.responses]
    return Specimen(corpus.origin(row), tuple((name, _shorter(text, end)) for name, text, end in texts))


def _called(response: Response) -> str:
    if response.role:
        return response.role
    known = [
        f"{name} {value:g}" for name, value in response.columns.items() if isinstance(value, int | float)
    ]
    return ", ".join(known) or "response"


def _shorter(text: str, end: bool) -> str:
    """Of a prompt its end, which the responses answer; of a response its beginning."""
    if len(text) <= SHOWN:
        return text
    return "…" + text[-SHOWN:].lstrip() if end else text[:SHOWN].rstrip() + "…"


Check = Callable[[Look], Iterator[Finding | Unasked]]
"""A check finds something, or says what it would need, or nothing where its question makes no sense."""
