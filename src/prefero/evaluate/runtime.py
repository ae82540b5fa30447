"""Programs compared by how long they run, and by how much memory they hold.

A mean of run times lets one rare slow run decide, and cannot be estimated from runs that were stopped. What
follows from axioms is expected utility: u(t) falls from 1 to 0 with the time t. Graham et al., 2022, arXiv
2205.13028.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prefero.errors import PreferoError

Family = Literal["uniform", "exponential", "pareto", "log_laplace", "gen_log_laplace", "step"]


@dataclass(frozen=True, slots=True)
class RuntimeUtility:
    """u(t), the chance that the time at which a result becomes worthless is still to come.

    ``k0`` is the scale, in the unit of the times: the end (``uniform``, ``step``), the mean
    (``exponential``), the least (``pareto``), the median (``log_laplace``). ``a`` is the exponent of the tail
    and ``b`` that of the rise, for the generalised log-Laplace family alone.
    """

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
            case "log_laplace":
                return 1 - ratio**self.a / 2 if ratio < 1 else ratio**-self.a / 2
            case "gen_log_laplace":
                low, high = self.a / (self.a + self.b), self.b / (self.a + self.b)
                return 1 - low * ratio**self.b if ratio < 1 else high * ratio**-self.a
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
            case "log_laplace":
                low, high, rise = 0.5, 0.5, self.a
            case "gen_log_laplace":
                low, high, rise = self.a / (self.a + self.b), self.b / (self.a + self.b), self.b
        if utility > high:
            return self.k0 * ((1 - utility) / low) ** (1 / rise)
        return self.k0 * (high / utility) ** (1 / self.a)


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
    """Of runs that were stopped at ``cap``, each with its time; one at or above the cap was stopped.

    ``error`` is the probability that Hoeffding's bound may fail.
    """
    if not times:
        raise PreferoError("an expected utility needs at least one run; got none.")
    finished = [utility(time) for time in times if time < cap]
    stopped = len(times) - len(finished)
    low = math.fsum(finished) / len(times)
    high = low + (stopped * utility(cap) / len(times) if stopped else 0.0)
    return ExpectedUtility(low, high, hoeffding(len(times), error))


def hoeffding(count: int, error: float = 0.05) -> float:
    """√(ln(2/δ)/(2m)): the mean of ``count`` numbers in [0, 1] is farther from the truth with probability
    ``error`` at most."""
    return math.sqrt(math.log(2 / error) / (2 * count))


def preferred(first: ExpectedUtility, second: ExpectedUtility, margin: float = 0.0) -> int | None:
    """0 or 1 for the program that is better by more than ``margin`` whatever the stopped runs would have
    given; None where that is open."""
    if first.low - second.high > margin:
        return 0
    return 1 if second.low - first.high > margin else None


def percentile(value: float, others: Sequence[float]) -> float:
    """The share of the others that do not beat a cost: 1 − (strictly smaller ones)/n. 1 is as good as the
    best. Du et al., 2025, arXiv 2505.23387, measure generated programs among human ones."""
    return 1 - sum(other < value for other in others) / len(others)


def efficiency_score(values: Sequence[float], passed: Sequence[bool], others: Sequence[float]) -> float:
    """The mean percentile of solutions; one that fails its tests counts 0."""
    each = [percentile(value, others) * bool(good) for value, good in zip(values, passed, strict=True)]
    return sum(each) / len(each)


def memory_time(times: Sequence[float], memory: Sequence[float]) -> float:
    """The area under memory over time, by trapezoids."""
    steps = zip(times, times[1:], memory, memory[1:], strict=False)
    return math.fsum((end - start) * (low + high) / 2 for start, end, low, high in steps)


FAILED = {"time": 90.0, "memory": 1e9, "integral": 1e10}
"""What a run that failed is taken to cost, in seconds and the units of the measurements."""


def efficiency_gain(before: float, after: float) -> float:
    """tanh of the relative gain, cut to [−1, 1]: half the cost gives 0.46, ten times as much −0.76."""
    return math.tanh(min(max((before - after) / (before + 1e-9), -1.0), 1.0))


def pass_reward(before: bool, after: bool) -> float:
    """1 for a program that passes now, ½ if it still does, −½ if it still fails, −1 if it was broken."""
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
    """The improvement and the reward of a rewritten program: its passing decides, its efficiency only counts
    if it passes. Du et al., 2025, arXiv 2505.23387 (Afterburner)."""
    passing = pass_reward(before, after)
    improvement = passing + (efficiency_weight * gain if passing > 0 else 0.0)
    return improvement, improvement_weight * improvement + format_weight * float(formatted)
