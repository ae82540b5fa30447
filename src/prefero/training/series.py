"""Numbers logged over a run, and what can be said about them through their noise. Plain Python."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any

EVAL = "eval/"
"""Stands before the names of held-out metrics."""
SHORTEST = 12
"""How many values of a series tell anything through its noise."""
CERTAIN = 4.0
"""A change counts beyond this many standard errors. A monitor looks again at every log: over 150 logs of pure
noise, 2 % of simulated runs pass four, 13 % pass three."""


@dataclass(slots=True)
class History:
    """The log of a run so far: per metric its steps and values.

    ``epochs`` is the last epoch seen, as a real number (1.5: half of the second pass over the data).
    """

    series: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    epochs: float = 0.0

    def record(self, metrics: Mapping[str, object]) -> None:
        """Add one line of ``metrics.jsonl``: a mapping with ``step`` and any numbers."""
        step = metrics.get("step")
        if not isinstance(step, int):
            return
        for name, value in metrics.items():
            if name == "epoch" and isinstance(value, int | float):
                self.epochs = max(self.epochs, float(value))
            elif name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self.series[name].append((step, float(value)))

    def values(self, name: str) -> list[float]:
        return [value for _, value in self.series.get(name, ())]

    def has(self, *names: str) -> bool:
        return all(self.series.get(name) for name in names)

    def quotient(self, name: str, by: str) -> list[float]:
        """``name / by`` at the steps that have both; a metric per token, given its sum and the length."""
        below = dict(self.series.get(by, ()))
        return [value / below[step] for step, value in self.series.get(name, ()) if below.get(step)]


def metric_names(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's ``eval_x`` under the name that run folders use, ``eval/x``."""
    return {
        EVAL + name.removeprefix("eval_") if name.startswith("eval_") else name: logs[name] for name in logs
    }


@dataclass(frozen=True, slots=True)
class Drift:
    """From the first few values of a series to its last few. ``error``: standard error of the change."""

    start: float
    now: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Drift:
        """The drift of a series of at least twelve values."""
        width = window(len(values))
        first, last = values[:width], values[-width:]
        return cls(fmean(first), fmean(last), math.sqrt((variance(first) + variance(last)) / width))

    @property
    def change(self) -> float:
        return self.now - self.start

    @property
    def certain(self) -> bool:
        """Whether the change stands out of the noise."""
        return abs(self.change) > CERTAIN * self.error


def window(count: int) -> int:
    """How many neighbouring logs are averaged: a third of them, four to sixteen."""
    return max(4, min(16, count // 3))


def rolling(values: Sequence[float], width: int) -> list[float]:
    """Means of every ``width`` neighbours."""
    return [fmean(values[i : i + width]) for i in range(len(values) - width + 1)]
