"""Rows that nearly say what another row says, or nearly the opposite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prefero.doctor.corpus import Corpus
from prefero.doctor.shingles import NEAR, Sketches, candidates, jaccard, shingles, sketches

MOST = 50_000
"""How many candidates are measured."""

CLEARER = 0.05
"""By how much the crossed sides of two rows must be more alike than the straight ones to count as swapped."""

Row = tuple[int, str, str, str]
"""A row, its prompt, the better and the worse response; a labelled response has "" for the other."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """``near`` are rows that nearly repeat an earlier one, with that one, ``opposed`` couples of rows that
    nearly contradict each other. ``measured`` of ``candidates`` were looked at."""

    near: Mapping[int, int]
    opposed: tuple[tuple[int, int], ...]
    measured: int
    candidates: int


def rows_of(corpus: Corpus, leave_out: Iterable[int] = ()) -> list[Row]:
    out = set(leave_out)
    rows = [(p.row, p.prompt, p.chosen, p.rejected) for p in corpus.pairs if p.row not in out]
    rows += [
        (one.row, one.prompt, one.response, "") if one.good else (one.row, one.prompt, "", one.response)
        for one in corpus.labelled
        if one.row not in out
    ]
    return rows


def near_rows(rows: Sequence[Row]) -> Nearness:
    """Among rows none of which repeats another to the letter."""
    drawn = sketches("\n".join((prompt, *sorted(sides))) for _, prompt, *sides in rows)
    couples = candidates(drawn)
    measured = couples[:MOST]
    parent = list(range(len(rows)))
    opposed = []
    for i, j in measured.tolist():
        kind = _kind(rows[i], rows[j])
        if kind == "opposed":
            opposed.append((rows[i][0], rows[j][0]))
        elif kind == "near":
            first, second = _root(parent, i), _root(parent, j)
            parent[max(first, second)] = min(first, second)
    near = {rows[i][0]: rows[_root(parent, i)][0] for i in range(len(rows)) if parent[i] != i}
    return Nearness(dict(sorted(near.items())), tuple(opposed), len(measured), len(couples))


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@lru_cache(maxsize=4096)
def _shingles(text: str) -> NDArray[np.uint64]:
    return shingles(text)


def alike(one: str, other: str) -> float:
    """The Jaccard similarity of two texts."""
    return 1.0 if one == other else jaccard(_shingles(one), _shingles(other))


def _kind(one: Row, other: Row) -> str:
    if alike(one[1], other[1]) < NEAR:
        return ""
    straight = min(alike(one[2], other[2]), alike(one[3], other[3]))
    crossed = min(alike(one[2], other[3]), alike(one[3], other[2]))
    if crossed >= NEAR and crossed > straight + CLEARER:
        return "opposed"
    return "near" if straight >= NEAR else ""


def prompts_nearby(
    train: Sketches, train_prompts: Sequence[str], held_out: Sketches, held_out_prompts: Sequence[str]
) -> dict[int, int]:
    """The held-out prompts that have a near one to train on, each with that one's place."""
    found: dict[int, int] = {}
    for i, j in candidates(train, held_out)[:MOST].tolist():
        if j not in found and alike(train_prompts[i], held_out_prompts[j]) >= NEAR:
            found[j] = i
    return found
