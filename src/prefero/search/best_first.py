"""Best-first search without a critic: the open node whose path the policy finds likeliest is expanded next.

Xin et al., 2025, arXiv 2502.03438 (BFS-Prover).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from prefero.feedback.pairing import Pair, known

State = TypeVar("State", bound=Hashable)


def path_score(logp: float, steps: int, alpha: float = 0.5) -> float:
    """Σ log π(a_t | s_t) / L^α of a path of L steps, ``logp`` being the sum: 0 punishes depth, 1 is the mean
    per step. The empty path, the root's, scores 0."""
    return logp / steps**alpha if steps else 0.0


@dataclass(frozen=True, slots=True)
class Node(Generic[State]):
    """A state, how many steps lead to it, and the sum of their log-probabilities."""

    state: State
    steps: int = 0
    logp: float = 0.0


def best_first(
    root: State,
    expand: Callable[[State], Iterable[tuple[State, float]]],
    *,
    alpha: float = 0.5,
    most: int | None = None,
) -> Iterator[Node[State]]:
    """The nodes in the order of their expansion, at most ``most``; of equal scores the one found first.

    ``expand`` gives the states that follow one, each with the log-probability of the step, and is asked when
    the caller goes on past the node. States that are met again are nodes again: leave known ones out in
    ``expand``.
    """
    return islice(_search(root, expand, alpha), most)


def _search(
    root: State, expand: Callable[[State], Iterable[tuple[State, float]]], alpha: float
) -> Iterator[Node[State]]:
    found = 0
    open_nodes: list[tuple[float, int, Node[State]]] = [(0.0, 0, Node(root))]
    while open_nodes:
        _, _, node = heapq.heappop(open_nodes)
        yield node
        for state, logp in expand(node.state):
            found += 1
            child = Node(state, node.steps + 1, node.logp + known([logp])[0])
            heapq.heappush(open_nodes, (-path_score(child.logp, child.steps, alpha), found, child))


def step_pairs(outcomes: Sequence[str], most: int | None = None) -> list[Pair]:
    """Pairs of steps tried in one state: those on the path of a proof (``"ok_path"``) against those that the
    checker refused (``"err"``), at most ``most``. Legal steps that led nowhere are neither."""
    good = [place for place, outcome in enumerate(outcomes) if outcome == "ok_path"]
    bad = [place for place, outcome in enumerate(outcomes) if outcome == "err"]
    return [(better, worse) for better in good for worse in bad][:most]
