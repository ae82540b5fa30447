"""Programs that are graphs (ladder diagrams, flow charts): how many edits lie between two of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from prefero.errors import PreferoError

MOST_NODES = 12


@dataclass(frozen=True, slots=True)
class LabelledGraph:
    """A directed graph with labelled nodes; edges are pairs of the nodes' places."""

    labels: tuple[Hashable, ...]
    edges: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, labels: Sequence[Hashable], edges: Sequence[Sequence[int]]) -> LabelledGraph:
        """Raises PreferoError for an edge to a node that is not there."""
        for start, end in edges:
            if not (0 <= start < len(labels) and 0 <= end < len(labels)):
                raise PreferoError(f"the edge {start}–{end} has no node at an end; there are {len(labels)}.")
        return cls(tuple(labels), frozenset((start, end) for start, end in edges))


def edit_distance(first: LabelledGraph, second: LabelledGraph) -> int:
    """The fewest insertions, deletions and relabellings of nodes, and insertions and deletions of edges, that
    make one graph the other; 0 for the same graph with its nodes in another order.

    Exact, by branch and bound over assignments of nodes: for up to a dozen nodes.

    Raises:
        PreferoError: a graph has more than that.
    """
    if max(len(first.labels), len(second.labels)) > MOST_NODES:
        raise PreferoError(
            f"the graphs have {len(first.labels)} and {len(second.labels)} nodes; the exact distance is for "
            f"{MOST_NODES} at most."
        )
    best = len(first.labels) + len(second.labels) + len(first.edges) + len(second.edges)

    def assign(assigned: list[int | None], free: frozenset[int], cost: int) -> None:
        nonlocal best
        node = len(assigned)
        rest = abs(len(first.labels) - node - len(free))
        if cost + rest >= best:
            return
        if node == len(first.labels):
            untouched = sum(start in free or end in free for start, end in second.edges)
            best = min(best, cost + len(free) + untouched)
            return
        same = sorted(free, key=lambda other: second.labels[other] != first.labels[node])
        for other in [*same, None]:
            label = int(other is None or second.labels[other] != first.labels[node])
            edges = _differing_edges(first, second, [*assigned, other])
            assign([*assigned, other], free - {other}, cost + label + edges)

    assign([], frozenset(range(len(second.labels))), 0)
    return best


def _differing_edges(first: LabelledGraph, second: LabelledGraph, assigned: Sequence[int | None]) -> int:
    """Edges between the last assigned node and the earlier ones (or itself) that only one graph has."""
    node, other = len(assigned) - 1, assigned[-1]
    differing = 0
    for earlier, image in enumerate(assigned):
        for ours, theirs in {
            ((node, earlier), (other, image)),
            ((earlier, node), (image, other)),
        }:
            there = None not in theirs and theirs in second.edges
            differing += (ours in first.edges) != there
    return differing


def same_program(first: LabelledGraph, second: LabelledGraph) -> bool:
    """Whether the graphs differ in the order of their nodes at most: such a text is no rejected response.
    Kang et al., 2025, arXiv 2502.16529."""
    return (
        sorted(map(repr, first.labels)) == sorted(map(repr, second.labels))
        and len(first.edges) == len(second.edges)
        and edit_distance(first, second) == 0
    )
