"""Measurements of generated programs: problems solved within k attempts, run time, memory, edit distance.

Means of run times depend on a few slow runs, and cannot be estimated from runs that were stopped; expected
utility, with u(t) from 1 down to 0, can (:func:`expected_utility`). Graham et al., 2022, arXiv 2205.13028.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.optimize import linear_sum_assignment

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean, mean


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """1 − C(n − c, k)/C(n, k): the probability that k of n attempts, drawn without replacement, include a
    correct one. The unbiased estimate of Chen et al., 2021, arXiv 2107.03374.

    Raises:
        PreferoError: more correct attempts than attempts, or fewer attempts than ``k``.
    """
    _check_attempts(attempts, correct, k)
    draws = math.comb(attempts, k)
    return (draws - math.comb(attempts - correct, k)) / draws


def pass_rate(problems: Iterable[Sequence[bool]], k: int, confidence: float = 0.95) -> Mean:
    """pass@k over problems, each given by whether its attempts were correct, with the interval over problems.
    The numbers of attempts may differ."""
    return mean([pass_at_k(len(tries), sum(map(bool, tries)), k) for tries in problems], confidence)


def all_pass_at_k(attempts: int, correct: int, k: int) -> float:
    """C(c, k)/C(n, k): the probability that k of n attempts are all correct, the counterpart that measures
    reliability (pass^k). Yao et al., 2024, arXiv 2406.12045."""
    _check_attempts(attempts, correct, k)
    return math.comb(correct, k) / math.comb(attempts, k)


def _check_attempts(attempts: int, correct: int, k: int) -> None:
    if not 0 <= correct <= attempts:
        raise PreferoError(f"{correct} of {attempts} attempts are said to be correct.")
    if not 1 <= k <= attempts:
        raise PreferoError(f"k is {k}; expected from 1 to the number of attempts, {attempts}.")


Family = Literal["uniform", "exponential", "pareto", "log_laplace", "gen_log_laplace", "step"]


@dataclass(frozen=True, slots=True)
class RuntimeUtility:
    """u(t), the probability that a result is still worth something after the time t. ``k0`` is the end
    (``uniform``, ``step``), mean (``exponential``), least (``pareto``) or median (``log_laplace``) time;
    ``a`` is the exponent of the tail, ``b`` that of the rise (``gen_log_laplace``)."""

    family: Family
    k0: float = 60.0
    a: float = 1.5
    b: float = 2.0

    def __post_init__(self) -> None:
        for name in ("k0", "a", "b"):
            if not getattr(self, name) > 0:
                raise PreferoError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def __call__(self, time: float) -> float:
        ratio = time / self.k0
        match self.family:
            case "uniform":
                return max(0.0, 1 - ratio)
            case "exponential":
                return math.exp(-ratio)
            case "step":
                return float(ratio < 1)
            case "pareto":
                return 1.0 if ratio < 1 else ratio**-self.a
            case "log_laplace" | "gen_log_laplace":
                low, high, rise = self._pieces()
                return 1 - low * ratio**rise if ratio < 1 else high * ratio**-self.a
        raise PreferoError(f"there is no family {self.family!r} of utilities.")

    def time_of(self, utility: float) -> float:
        """The time at which u has fallen to ``utility``, in (0, 1): runs stopped there cost at most that."""
        if not 0 < utility < 1:
            raise PreferoError(f"utility is {utility}; expected a number between 0 and 1.")
        match self.family:
            case "uniform":
                return self.k0 * (1 - utility)
            case "exponential":
                return -self.k0 * math.log(utility)
            case "step":
                return self.k0
            case "pareto":
                return self.k0 * utility ** (-1 / self.a)
        low, high, rise = self._pieces()
        if utility > high:
            return self.k0 * ((1 - utility) / low) ** (1 / rise)
        return self.k0 * (high / utility) ** (1 / self.a)

    def _pieces(self) -> tuple[float, float, float]:
        rise = self.a if self.family == "log_laplace" else self.b
        return self.a / (self.a + rise), rise / (self.a + rise), rise


@dataclass(frozen=True, slots=True)
class ExpectedUtility:
    """Bounds on the mean utility of a program: stopped runs count 0 in ``low`` and u(cap) in ``high``. The
    true one is between low − ``half_width`` and high + ``half_width`` with the probability asked for."""

    low: float
    high: float
    half_width: float


def expected_utility(
    utility: RuntimeUtility, times: Sequence[float], cap: float = math.inf, *, error: float = 0.05
) -> ExpectedUtility:
    """Bounds on the utility from the times of runs that were stopped at ``cap``. ``error`` is the probability
    with which Hoeffding's bound may fail."""
    if not times:
        raise PreferoError("an expected utility needs at least one run; got none.")
    finished = [utility(time) for time in times if time < cap]
    stopped = len(times) - len(finished)
    low = math.fsum(finished) / len(times)
    high = low + (stopped * utility(cap) / len(times) if stopped else 0.0)
    return ExpectedUtility(low, high, hoeffding(len(times), error))


def hoeffding(count: int, error: float = 0.05) -> float:
    """√(ln(2/δ)/(2m)): the mean of ``count`` numbers in [0, 1] is farther than this from its expectation with
    probability ``error`` at most."""
    return math.sqrt(math.log(2 / error) / (2 * count))


def percentile(value: float, others: Sequence[float]) -> float:
    """1 − (strictly smaller costs)/n, among human solutions in Du et al., 2025, arXiv 2505.23387."""
    return 1 - sum(other < value for other in others) / len(others)


def efficiency_score(values: Sequence[float], passed: Sequence[bool], others: Sequence[float]) -> float:
    """The mean percentile of solutions; a solution that fails its tests counts 0."""
    return fmean(percentile(value, others) * bool(good) for value, good in zip(values, passed, strict=True))


def memory_time(times: Sequence[float], memory: Sequence[float]) -> float:
    """The area under memory over time, by trapezoids."""
    return float(trapezoid(memory, times))


FAILED = {"time": 90.0, "memory": 1e9, "integral": 1e10}
"""The assumed costs of a run that failed, in seconds and the units of the measurements."""


def efficiency_gain(before: float, after: float) -> float:
    """tanh of the relative gain, cut to [−1, 1]: half the cost gives 0.46, ten times as much −0.76."""
    return math.tanh(min(max((before - after) / (before + 1e-9), -1.0), 1.0))


def pass_reward(before: bool, after: bool) -> float:
    """1 if the program passes only now, ½ if both times, −½ if never, −1 if only before."""
    if after:
        return 0.5 if before else 1.0
    return -1.0 if before else -0.5


def rewrite_reward(
    before: bool,
    after: bool,
    gain: float,
    formatted: bool,
    *,
    improvement_weight: float = 0.5,
    format_weight: float = 0.2,
    efficiency_weight: float = 0.5,
) -> tuple[float, float]:
    """The improvement and the reward of a rewritten program. Du et al., 2025, arXiv 2505.23387
    (Afterburner)."""
    passing = pass_reward(before, after)
    improvement = passing + (efficiency_weight * gain if passing > 0 else 0.0)
    return improvement, improvement_weight * improvement + format_weight * float(formatted)


MOST_NODES = 12


@dataclass(frozen=True, slots=True)
class LabelledGraph:
    """A directed graph with labelled nodes; edges are pairs of node indices."""

    labels: tuple[Hashable, ...]
    edges: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, labels: Sequence[Hashable], edges: Sequence[Sequence[int]]) -> LabelledGraph:
        """Raises :class:`PreferoError` for an edge to a missing node."""
        for start, end in edges:
            if not (0 <= start < len(labels) and 0 <= end < len(labels)):
                raise PreferoError(
                    f"the edge {start}–{end} has no node at an end; the graph has {len(labels)}."
                )
        return cls(tuple(labels), frozenset((start, end) for start, end in edges))


def edit_distance(first: LabelledGraph, second: LabelledGraph) -> int:
    """The fewest insertions, deletions and relabellings of nodes, and insertions and deletions of edges, that
    turn one graph into the other. Exact, by branch and bound.

    Raises:
        PreferoError: a graph has more than a dozen nodes.
    """
    if max(len(first.labels), len(second.labels)) > MOST_NODES:
        raise PreferoError(
            f"the graphs have {len(first.labels)} and {len(second.labels)} nodes; the exact distance is for "
            f"{MOST_NODES} at most."
        )
    return _Matching(first, second).best


class _Matching:
    """The search for the cheapest assignment of the first graph's nodes to the second's, or to none.

    Nodes are assigned one after the other. What the others cost at least is an assignment problem: the cost
    of each pair of nodes alone, in which an edge between two of them counts half at either end by the
    difference of degrees (Riesen and Bunke, 2009, Approximate graph edit distance computation by means of
    bipartite graph matching).
    """

    def __init__(self, first: LabelledGraph, second: LabelledGraph) -> None:
        self.edges = tuple(_adjacency(graph) for graph in (first, second))
        self.relabelled = np.array(
            [[float(ours != theirs) for theirs in second.labels] for ours in first.labels]
        ).reshape(len(first.labels), len(second.labels))
        ours, theirs = self.edges
        self.best = len(ours) + len(theirs) + int(ours.sum() + theirs.sum())
        busiest = (-(ours.sum(0) + ours.sum(1))).argsort(kind="stable")
        self.search([int(node) for node in busiest], [], [], 0)

    def search(self, left: list[int], done: list[int], images: list[int | None], cost: int) -> None:
        """Go through the ways to assign the nodes that are left, the nearest first."""
        free = [node for node in range(len(self.edges[1])) if node not in images]
        costs, bound, matched = self.bounded(left, free, done, images)
        if cost + math.ceil(bound - 1e-9) >= self.best:
            return
        complete = dict(zip(done, images, strict=True)) | {node: matched[node] for node in left}
        self.best = min(self.best, self.cost(complete))
        if not left:
            return
        node, rest = left[0], left[1:]
        options = sorted([*range(len(free)), len(free)], key=lambda place: costs[0, place])
        for place in options:
            other = free[place] if place < len(free) else None
            added = self.cost(dict(zip([*done, node], [*images, other], strict=True)), whole=False) - cost
            self.search(rest, [*done, node], [*images, other], cost + added)

    def bounded(
        self, left: Sequence[int], free: Sequence[int], done: Sequence[int], images: Sequence[int | None]
    ) -> tuple[NDArray[np.float64], float, dict[int, int | None]]:
        """The costs of each node alone (the columns: each free node, then none), what they come to at least
        together, and the assignment by which they do."""
        ours, theirs = self.edges
        there = [image is not None for image in images]
        used = [image for image in images if image is not None]
        alone, single = _halves(ours, left), _halves(theirs, free)
        costs = np.zeros((len(left) + len(free), len(free) + len(left)))
        pairs = self.relabelled[np.ix_(left, free)].copy()
        deleted = 1 + alone.sum(0) + np.diag(ours)[left]
        added = 1 + single.sum(0) + np.diag(theirs)[free]
        pairs += np.abs(np.diag(ours)[left][:, None] - np.diag(theirs)[free][None])
        for half, other in zip(alone, single, strict=True):
            pairs += np.abs(half[:, None] - other[None])
        for mine, its in ((ours, theirs), (ours.T, theirs.T)):
            touching = mine[np.ix_(left, done)]
            images_touching = np.zeros((len(free), len(done)))
            images_touching[:, there] = its[np.ix_(free, used)]
            pairs += np.abs(touching[:, None] - images_touching[None]).sum(2)
            deleted += touching.sum(1)
            added += images_touching.sum(1)
        costs[: len(left), : len(free)] = pairs
        costs[: len(left), len(free) :] = deleted[:, None]
        costs[len(left) :, : len(free)] = added[None]
        rows, columns = linear_sum_assignment(costs)
        matched = {
            left[row]: free[column] if column < len(free) else None
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if row < len(left)
        }
        return costs[: max(len(left), 1)], float(costs[rows, columns].sum()), matched

    def cost(self, assigned: Mapping[int, int | None], *, whole: bool = True) -> int:
        """The edits of an assignment; unless it is the ``whole``, of the assigned nodes and their images."""
        ours, theirs = self.edges
        kept = [(node, image) for node, image in assigned.items() if image is not None]
        nodes, images = [node for node, _ in kept], [image for _, image in kept]
        mine = ours if whole else ours[np.ix_(list(assigned), list(assigned))]
        its = theirs if whole else theirs[np.ix_(images, images)]
        common = (ours[np.ix_(nodes, nodes)] * theirs[np.ix_(images, images)]).sum()
        relabelled = self.relabelled[nodes, images].sum()
        unmatched = len(assigned) - len(kept) + (len(theirs) - len(kept) if whole else 0)
        return int(relabelled + unmatched + mine.sum() + its.sum() - 2 * common)


def _adjacency(graph: LabelledGraph) -> NDArray[np.float64]:
    adjacency = np.zeros((len(graph.labels), len(graph.labels)))
    for start, end in graph.edges:
        adjacency[start, end] = 1
    return adjacency


def _halves(edges: NDArray[np.float64], nodes: Sequence[int]) -> NDArray[np.float64]:
    """Half of the number of edges out of, and into, each of some nodes from and to the others of them."""
    among = edges[np.ix_(nodes, nodes)] * (1 - np.eye(len(nodes)))
    return np.stack([among.sum(1), among.sum(0)]) / 2


def same_program(first: LabelledGraph, second: LabelledGraph) -> bool:
    """Whether the graphs differ at most in the order of their nodes: such a program cannot serve as a
    rejected response. Kang et al., 2025, arXiv 2502.16529."""
    return (
        sorted(map(repr, first.labels)) == sorted(map(repr, second.labels))
        and len(first.edges) == len(second.edges)
        and edit_distance(first, second) == 0
    )
