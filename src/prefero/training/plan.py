"""Which examples meet in which optimizer step, and how a step is dealt to rows and ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from prefero.kinds.rows import Rows


@dataclass(frozen=True, slots=True)
class Draw:
    """One example as one row takes it. ``ghost``: a copy that keeps an empty row busy and counts nothing."""

    index: int
    epoch: int
    ghost: bool = False


class StepPlan:
    """The examples of every optimizer step, dealt to ``rows`` rows on each of ``world`` ranks.

    Every step takes ``examples_per_step`` examples of a seeded shuffle; the last, smaller one of an epoch is
    kept. ``rows`` is the smallest number for which every row of every step of ``epochs`` epochs fits
    ``tokens_per_row`` (an example larger than that has a row of its own). The plan is a pure function of its
    arguments: each rank computes it alone, and makes the same number of forward passes.
    """

    def __init__(
        self,
        count: int,
        layout: Rows,
        *,
        examples_per_step: int,
        tokens_per_row: int,
        world: int = 1,
        epochs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.count, self.layout, self.world = count, layout, world
        self.examples_per_step, self.seed, self.shuffle = examples_per_step, seed, shuffle
        self.steps_per_epoch = math.ceil(count / examples_per_step)
        self.rows = self._smallest_rows(tokens_per_row, epochs if shuffle else 1)

    def steps(self, epoch: int) -> list[list[int]]:
        """The examples of each step of an epoch."""
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        size = self.examples_per_step
        return [order[start : start + size].tolist() for start in range(0, self.count, size)]

    def deal(self, step: Sequence[int], epoch: int) -> list[list[Draw]]:
        """The rows of one step, ``rows × world`` of them, the largest first; neighbours run side by side."""
        dealt = sorted(self.layout.deal(step, self.rows * self.world), key=self.layout.cost, reverse=True)
        rows = [[Draw(index, epoch) for index in row] for row in dealt]
        smallest = min(step, key=lambda index: (self.layout.cost([index]), index))
        rows += [[Draw(smallest, epoch, ghost=True)] for _ in range(self.rows * self.world - len(rows))]
        return rows

    def rank_rows(self, epoch: int, rank: int) -> Iterator[list[Draw]]:
        """The rows that one rank scores in an epoch, ``rows`` of them a step."""
        for step in self.steps(epoch):
            yield from self.deal(step, epoch)[rank :: self.world]

    def _smallest_rows(self, tokens_per_row: int, epochs: int) -> int:
        largest = max(self.layout.cost([index]) for index in range(self.count))
        budget = max(tokens_per_row, largest)
        rows = 1
        for epoch in range(epochs):
            for step in self.steps(epoch):
                while any(
                    self.layout.cost(row) > budget for row in self.layout.deal(step, rows * self.world)
                ):
                    rows += 1
        return rows


class RankRows(Sampler[list[Draw]]):
    """One rank's rows of the epoch that ``set_epoch`` named last: a batch sampler for a ``DataLoader``."""

    def __init__(self, plan: StepPlan, rank: int = 0) -> None:
        self.plan, self.rank, self.epoch = plan, rank, 0
        # Looked up by transformers and accelerate on anything that yields batches.
        self.batch_size, self.drop_last = None, False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.plan.rows

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.rank_rows(self.epoch, self.rank)
