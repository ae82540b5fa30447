"""A task is one arm of one seed, or one seed of a check; here it is measured, in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from prefero_lab.machine import commit, cores, processor
from prefero_lab.papers.paper import Arm, Check, Experiment, Trained
from prefero_lab.papers.results import Measured, fingerprint, library

KEPT = 4
"""Number of starts and data sets that a process keeps, since arms of a seed and papers share them."""


@dataclass(frozen=True)
class Task:
    """A result to be. ``arm`` is None for a check."""

    subject: Experiment[Any, Any] | Check
    arm: Arm | None
    seed: int

    @property
    def name(self) -> str:
        return "check" if self.arm is None else self.arm.name

    @cached_property
    def mark(self) -> str:
        """Equal for tasks that have one result."""
        return fingerprint(self.subject, self.arm, self.seed)

    @cached_property
    def made_from(self) -> str:
        """Equal for tasks that have one start and data."""
        return fingerprint(self.subject, None, self.seed)


class Bench:
    """Measures tasks one after the other, and keeps the starts and data of the last few. Seconds are the
    processor's, so that other work on the machine does not count."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, task: Task) -> Measured:
        began = time.process_time()
        found = (
            _checked(task.subject, task) if isinstance(task.subject, Check) else self._arm(task.subject, task)
        )
        seconds = round(time.process_time() - began, 2)
        machine = f"{processor()}, {cores()} cores"
        return replace(found, seconds=seconds, library=library(), commit=commit(), machine=machine)

    def _arm(self, experiment: Experiment[Any, Any], task: Task) -> Measured:
        assert task.arm is not None
        made = self._start_and_data(experiment, task)
        if task.arm.settings is None:
            trained = Trained(experiment.start(made))
        else:
            trained = experiment.train(made, task.arm.settings, task.seed)
        metrics = experiment.measure(made, trained.model, task.seed)
        return Measured(
            task.name,
            task.seed,
            {name: [float(value) for value in values] for name, values in metrics.items()},
            {name: [list(point) for point in points] for name, points in trained.curves.items()},
        )

    def _start_and_data(self, experiment: Experiment[Any, Any], task: Task) -> Any:
        if task.made_from not in self._made:
            self._made[task.made_from] = experiment.make(task.seed)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(task.made_from)
        return self._made[task.made_from]


def _checked(check: Check, task: Task) -> Measured:
    return Measured(task.name, task.seed, {}, details=[asdict(number) for number in check.run(task.seed)])
