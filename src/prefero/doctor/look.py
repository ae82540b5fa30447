"""What a check looks at: the data, what they are measured with, and what several checks need."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from prefero.data.examples import Response
from prefero.doctor.commands import Commands
from prefero.doctor.corpus import Corpus, as_text, said
from prefero.doctor.findings import Finding, Specimen, Unasked
from prefero.doctor.repeats import Judgement, judgements

T = TypeVar("T")

SHOWN = 700
"""Characters of a text that a specimen shows."""


@dataclass
class Look:
    """``held_out`` are the evaluation data, if any. ``max_length`` is in tokens."""

    corpus: Corpus
    commands: Commands
    held_out: Corpus | None = None
    max_length: int | None = None
    seed: int = 0

    @cached_property
    def judgements(self) -> list[Judgement]:
        return judgements(self.corpus)

    def some(self, things: Sequence[T], most: int) -> Sequence[T]:
        """All the things, or as many of them drawn at random, in their order."""
        if len(things) <= most:
            return things
        places = sorted(random.Random(self.seed).sample(range(len(things)), most))
        return [things[place] for place in places]

    def specimens(self, rows: Sequence[int], most: int = 3) -> tuple[Specimen, ...]:
        """Some of the rows, from all over them, with their texts."""
        spread = [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else rows
        return tuple(specimen(self.corpus, row) for row in spread)


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
