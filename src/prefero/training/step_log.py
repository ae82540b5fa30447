"""What the rows of optimizer steps showed between two logs, and how fast they went."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from prefero.objectives.compare import Objective
from prefero.training.metrics import Averages, measure, term_names
from prefero.training.updates import Share


class StepLog:
    """Averages over the examples of all ranks; ``sum_over_ranks`` adds up a tensor on ``device``."""

    def __init__(self, sum_over_ranks: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.sum_over_ranks, self.device = sum_over_ranks, device
        self._averages = Averages()
        self._tokens, self._examples = 0, 0
        self._since = time.monotonic()

    def start(self) -> None:
        """The clock starts anew."""
        self._since = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Some seconds were no training."""
        self._since += seconds

    def add(self, row: Mapping[str, Any], share: Share, objective: Objective) -> None:
        self._averages.add(measure(share.batch, objective), row["weight"])
        if len(share.terms) > 1:
            names = term_names(objective, share.batch)
            for name, (total, count) in zip(names, share.terms, strict=True):
                self._averages.add_total(name, total, count)
        self._tokens += len(row["inputs"])
        self._examples += int(row["weight"]) * len(row["example"])

    def drain(self) -> dict[str, float]:
        """What is logged, and a fresh start."""
        found = self._averages.drain(self.sum_over_ranks)
        seconds = max(time.monotonic() - self._since, 1e-9)
        seen = torch.tensor([self._tokens, self._examples], dtype=torch.float32, device=self.device)
        rates = (self.sum_over_ranks(seen) / seconds).tolist()
        self._tokens, self._examples = 0, 0
        self.start()
        return {**found, "tokens_per_second": rates[0], "examples_per_second": rates[1]}
