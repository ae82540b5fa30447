"""Which examples meet in which optimizer step, and how a step is dealt to rows and ranks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class Draw:
    """One example as one row takes it. ``ghost``: a copy that keeps an empty row busy and counts nothing."""

    index: int
    epoch: int
    ghost: bool = False


class Rows(Protocol):
    """What a row of several examples costs, and how a step is dealt to rows."""

    def cost(self, members: Sequence[int]) -> int:
        """Tokens that go through the network for a row of these examples."""
        ...

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The examples of one step in at most ``rows`` rows, the largest cost as small as can be."""
        ...


class PackedRows:
    """Rows without padding: the cost of a row is the sum of its examples' ``sizes`` (unique tokens)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)

    def cost(self, members: Sequence[int]) -> int:
        return int(self.sizes[list(members)].sum())

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The longest first into the emptiest (Graham's rule: at most 4/3 of the best possible)."""
        emptiest = [(0, row) for row in range(rows)]
        dealt: list[list[int]] = [[] for _ in range(rows)]
        for member in sorted(members, key=lambda member: (-self.sizes[member], member)):
            load, row = emptiest[0]
            dealt[row].append(member)
            heapq.heapreplace(emptiest, (load + int(self.sizes[member]), row))
        return [row for row in dealt if row]


class PaddedRows:
    """Rows in which every response is padded to the longest: responses × longest is the cost of a row."""

    def __init__(self, responses: Sequence[int], longest: Sequence[int]) -> None:
        self.responses = np.asarray(responses, dtype=np.int64)
        self.longest = np.asarray(longest, dtype=np.int64)

    def cost(self, members: Sequence[int]) -> int:
        chosen = list(members)
        return int(self.responses[chosen].sum() * self.longest[chosen].max()) if chosen else 0

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The step sorted by length and cut into neighbours, so that little is padded."""
        ordered = sorted(members, key=lambda member: (-self.longest[member], member))
        low, high = max(self.cost([member]) for member in ordered), self.cost(ordered)
        while low < high:
            middle = (low + high) // 2
            if len(self._cut(ordered, middle)) <= rows:
                high = middle
            else:
                low = middle + 1
        return self._cut(ordered, low)

    def _cut(self, ordered: Sequence[int], budget: int) -> list[list[int]]:
        rows: list[list[int]] = []
        longest = responses = 0
        for member in ordered:
            responses += int(self.responses[member])
            if rows and responses * longest <= budget:
                rows[-1].append(member)
            else:
                rows.append([member])
                longest, responses = int(self.longest[member]), int(self.responses[member])
        return rows


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
