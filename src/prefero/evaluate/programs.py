"""Measurements of generated programs: problems solved within k attempts, run time, memory, edit distance.

Means of run times depend on a few slow runs, and cannot be estimated from runs that were stopped; expected
utility, with u(t) from 1 down to 0, can (:func:`expected_utility`). Graham et al., 2022, arXiv 2205.13028.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from scipy.integrate import trapezoid

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
    """Whether the graphs differ at most in the order of their nodes: such a program cannot serve as a
    rejected response. Kang et al., 2025, arXiv 2502.16529."""
    return (
        sorted(map(repr, first.labels)) == sorted(map(repr, second.labels))
        and len(first.edges) == len(second.edges)
        and edit_distance(first, second) == 0
    )
