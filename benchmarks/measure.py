"""What one process costs, and on which machine: peak memory, step times, processor, versions."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from prefero_lab.machine import cores, processor

MIB = 2**20
PACKAGES = ("prefero", "torch", "transformers", "accelerate", "trl", "datasets", "numpy")


def peak_bytes() -> int:
    """The largest resident set this process has had since it was started.

    Linux counts ``VmHWM`` from the start of the program. ``ru_maxrss`` there also covers the parent's memory
    at the moment of the fork, so it is read only where there is no ``/proc``.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


class StepClock(TrainerCallback):
    """When the first step began, the loss of every optimizer step, and the seconds from the end of one to the
    end of the next: data loading and logging included.

    The first step has no predecessor and is not timed: it also pays for warming up.
    """

    def __init__(self) -> None:
        self.began = 0.0
        self.ends: list[float] = []
        self.cpu_ends: list[float] = []
        self.losses: list[float] = []
        self._parts: list[float] = []

    def watch(self, trainer: Trainer) -> None:
        """Follow a trainer. The losses of the parts of a step, if it has several, add up to the step's."""
        trainer.add_callback(self)
        training_step = trainer.training_step

        def followed(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = training_step(*args, **kwargs)
            self._parts.append(float(loss))
            return loss

        trainer.training_step = followed  # type: ignore[method-assign]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tick()
        self.losses.append(sum(self._parts))
        self._parts.clear()

    def tick(self) -> None:
        """A step ends now."""
        self.ends.append(time.perf_counter())
        self.cpu_ends.append(time.process_time())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in pairwise(self.ends)]

    @property
    def cpu_seconds(self) -> list[float]:
        """Of all cores together: waiting for other processes is not in it."""
        return [after - before for before, after in pairwise(self.cpu_ends)]


def machine() -> dict[str, Any]:
    """The processor, memory, threads and library versions that the numbers belong to."""
    return {
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "bfloat16_matmul": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of repeated measurements and how far they scatter."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
