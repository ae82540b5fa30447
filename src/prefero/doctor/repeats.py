"""Rows that say again what another row says, and rows that say the opposite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefero.doctor.corpus import Corpus, same

Judgement = tuple[int, Hashable, Hashable, Hashable]
"""A row, its prompt, the better and the worse response. Of a labelled response the two are its text and a
mark: a good one is (text, mark), a bad one (mark, text)."""

MARK = "the other label"


def judgements(corpus: Corpus) -> list[Judgement]:
    """What the rows say, with a number for every text (:func:`~prefero.doctor.corpus.same`)."""
    said: list[Judgement] = [
        (pair.row, same(pair.prompt), same(pair.chosen), same(pair.rejected)) for pair in corpus.pairs
    ]
    for one in corpus.labelled:
        text = same(one.response)
        sides: tuple[Hashable, Hashable] = (text, MARK) if one.good else (MARK, text)
        said.append((one.row, same(one.prompt), *sides))
    return said


@dataclass(frozen=True, slots=True)
class Repeats:
    """``repeated`` are rows that repeat an earlier one; ``contradicting`` all rows of comparisons that are
    labelled both ways, in groups; ``identical`` rows whose two sides are the same text.

    ``judged`` has, for every comparison that was made more than once, how often it came out each way.
    ``cyclic`` are, by prompt, the rows on cycles of three or more responses.
    """

    repeated: tuple[int, ...]
    contradicting: tuple[tuple[int, ...], ...]
    identical: tuple[int, ...]
    judged: tuple[tuple[int, int], ...]
    cyclic: tuple[tuple[int, ...], ...]


def find(said: Sequence[Judgement]) -> Repeats:
    """The repeats, contradictions and cycles among the judgements."""
    comparisons: dict[tuple[Hashable, Hashable], list[tuple[int, bool]]] = defaultdict(list)
    prompts: dict[Hashable, list[tuple[int, Hashable, Hashable]]] = defaultdict(list)
    identical = []
    for row, prompt, better, worse in said:
        if better == worse:
            identical.append(row)
            continue
        sides = frozenset((better, worse))
        comparisons[prompt, sides].append((row, better == min(sides, key=_order)))
        if MARK not in sides:
            prompts[prompt].append((row, better, worse))
    repeated, contradicting, judged = [], [], []
    for judged_rows in comparisons.values():
        if len(judged_rows) == 1:
            continue
        ways = [[row for row, way in judged_rows if way is direction] for direction in (True, False)]
        repeated += [row for direction in ways for row in direction[1:]]
        judged.append((len(ways[0]), len(ways[1])))
        if all(ways):
            contradicting.append(tuple(sorted(row for row, _ in judged_rows)))
    cyclic = [rows for edges in prompts.values() if len(edges) > 2 and (rows := _on_cycles(edges))]
    return Repeats(
        tuple(sorted(repeated)), tuple(contradicting), tuple(identical), tuple(judged), tuple(cyclic)
    )


def _order(text: Hashable) -> tuple[bool, int]:
    return (text == MARK, text if isinstance(text, int) else 0)


def _on_cycles(edges: Iterable[tuple[int, Hashable, Hashable]]) -> tuple[int, ...]:
    """The rows of one prompt that lie on a cycle of three responses or more.

    An edge lies on a cycle if both its ends are in one strongly connected component; components of two are
    plain contradictions.
    """
    edges = list(edges)
    places = {text: i for i, text in enumerate({text for _, *ends in edges for text in ends})}
    reach: NDArray[np.bool_] = np.eye(len(places), dtype=bool)
    for _, better, worse in edges:
        reach[places[better], places[worse]] = True
    for middle in range(len(places)):
        reach |= reach[:, middle : middle + 1] & reach[middle]
    both = reach & reach.T
    return tuple(
        row
        for row, better, worse in edges
        if both[places[better], places[worse]] and both[places[better]].sum() > 2
    )
