"""Pairs whose chosen response is the longer one more often than its worth alone would make it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefero.errors import PreferoError
from prefero_lab.worlds.noisy import Row

if TYPE_CHECKING:
    from prefero.demo.text import TextWorld


@dataclass(frozen=True)
class LongerChosen:
    """Of the pairs that differ in length, as many are kept as make the chosen response the longer one in the
    ``share``: labels stay what they were, but which pairs there are is biased. One of
    :class:`~prefero_lab.worlds.noisy.Labels`.

    Raises:
        PreferoError: the share is not between 0 and 1.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise PreferoError(f"share {self.share} of longer chosen responses; expected one between 0 and 1")

    def __call__(self, world: TextWorld, rows: Sequence[Row], seed: int) -> list[Row]:
        longer = [i for i, row in enumerate(rows) if surplus(row) > 0]
        shorter = [i for i, row in enumerate(rows) if surplus(row) < 0]
        odds = self.share / (1 - self.share)
        rng = random.Random(f"{world.name} length bias {seed}")
        dropped = {
            *rng.sample(longer, max(0, len(longer) - round(len(shorter) * odds))),
            *rng.sample(shorter, max(0, len(shorter) - round(len(longer) / odds))),
        }
        return [row for i, row in enumerate(rows) if i not in dropped]


def surplus(row: Row) -> float:
    """Words and punctuation marks of the chosen response minus those of the rejected one."""
    from prefero_lab.worlds.instructions import words

    return words(row["prompt"], row["chosen"]) - words(row["prompt"], row["rejected"])
