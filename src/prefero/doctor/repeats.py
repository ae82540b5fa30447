"""Rows that say again what another row says, and rows that say the opposite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
    """``repeated`` are rows that repeat an earlier one, with that one; ``contradicting`` all rows of
    comparisons that are labelled both ways, in groups; ``identical`` rows whose two sides are the same text.

    ``judged`` has, for every comparison that was made more than once, how often it came out each way.
    ``cyclic`` are rows on cycles of three or more responses to a prompt, none of them contradicted by itself;
    ``circles`` is how many prompts have some.
    """

    repeated: Mapping[int, int]
    contradicting: tuple[tuple[int, ...], ...]
    identical: tuple[int, ...]
    judged: tuple[tuple[int, int], ...]
    cyclic: tuple[int, ...]
    circles: int


def find(said: Sequence[Judgement]) -> Repeats:
    """The repeats, contradictions and cycles among the judgements."""
    comparisons: dict[tuple[Hashable, Hashable], dict[Hashable, list[int]]] = defaultdict(dict)
    identical = []
    for row, prompt, better, worse in said:
        if better == worse:
            identical.append(row)
        else:
            ways = comparisons[prompt, frozenset((better, worse))]
            ways.setdefault(better, []).append(row)
    repeated, contradicting, judged = {}, [], []
    edges: list[tuple[int, Hashable, Hashable, Hashable]] = []
    for (prompt, sides), ways in comparisons.items():
        for better, (first, *later) in ways.items():
            repeated.update(dict.fromkeys(later, first))
            if len(ways) == 1 and MARK not in sides:  # type: ignore[operator]
                (worse,) = sides - {better}  # type: ignore[operator]
                edges += [(row, prompt, better, worse) for row in (first, *later)]
        if len(ways) == 2:
            contradicting.append(tuple(sorted(row for rows in ways.values() for row in rows)))
        if sum(map(len, ways.values())) > 1:
            one, *other = map(len, ways.values())
            judged.append((one, sum(other)))
    cyclic, circles = _on_cycles(edges)
    return Repeats(
        dict(sorted(repeated.items())), tuple(contradicting), tuple(identical), tuple(judged), cyclic, circles
    )


def _on_cycles(edges: Sequence[tuple[int, Hashable, Hashable, Hashable]]) -> tuple[tuple[int, ...], int]:
    """The rows that lie on a cycle, and how many prompts they have: an edge lies on one if both its ends are
    in one strongly connected component of the graph of responses."""
    if not edges:
        return (), 0
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    places: dict[tuple[Hashable, Hashable], int] = {}
    ends = [
        (places.setdefault((prompt, better), len(places)), places.setdefault((prompt, worse), len(places)))
        for _, prompt, better, worse in edges
    ]
    sources, targets = zip(*ends, strict=True)
    graph = csr_matrix((np.ones(len(ends)), (sources, targets)), shape=(len(places), len(places)))
    _, component = connected_components(graph, connection="strong")
    closed = [
        (row, prompt)
        for (row, prompt, _, _), (one, other) in zip(edges, ends, strict=True)
        if component[one] == component[other]
    ]
    return tuple(sorted(row for row, _ in closed)), len({prompt for _, prompt in closed})
