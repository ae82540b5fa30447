"""What rows of several examples cost, and how the examples of a step are dealt to rows."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol

import numpy as np


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
