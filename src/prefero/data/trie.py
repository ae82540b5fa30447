"""Examples as token ids, and the tree of their tokens.

Cells that begin alike share the nodes of a :class:`TokenTrie`, so that a token goes through the network once
however many responses it precedes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.pictures import Picture

IntArray = NDArray[np.int64]

Annotation = bool | int | float | NDArray[Any] | tuple[NDArray[Any], ...]
"""A column of one example: a scalar, an array over responses, or arrays over tokens, one per response."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One response in one context: the unit that a model scores.

    ``context`` and ``response`` are int64 ids, each at least one token; the end token, where the response has
    one, is its last. ``scored`` marks the tokens that count (holes are partner turns and tool output);
    ``None`` means all of them.
    """

    context: IntArray
    response: IntArray
    scored: NDArray[np.bool_] | None = None

    def cut(self, length: int | None) -> Cell:
        """The cell with so many tokens of its response; all, if None."""
        scored = None if self.scored is None else self.scored[:length]
        return Cell(self.context, self.response[:length], scored)


@dataclass(frozen=True, slots=True, eq=False)
class TokenExample:
    """An example after tokenisation; ``cells`` is the response axis.

    ``columns`` follow the axes of :data:`prefero.data.schema.SCHEMA`: a scalar, an array over responses, or a
    tuple of arrays over tokens. ``index`` is the position in the data set. ``views`` are the same responses
    under another prompt, or other responses under the same prompt, by view name. ``truncated`` counts the
    tokens that were dropped. ``images`` are those that its contexts show, by their keys in token ids.
    ``notes`` say how the row was read.
    """

    cells: tuple[Cell, ...]
    columns: Mapping[str, Annotation]
    index: int
    views: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    truncated: int = 0
    images: Mapping[int, tuple[Picture, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of tokens of each response."""
        return tuple(len(cell.response) for cell in self.cells)

    @property
    def all_cells(self) -> tuple[Cell, ...]:
        """The cells, and those of the views."""
        return (*self.cells, *(cell for cells in self.views.values() for cell in cells))

    def fingerprint(self) -> bytes:
        """A hash of every token and annotation."""
        digest = hashlib.sha256()
        for view, cells in {"": self.cells, **self.views}.items():
            digest.update(view.encode())
            for cell in cells:
                for array in (cell.context, cell.response, cell.scored):
                    digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
                    digest.update(b"|")
        for name in sorted(self.columns):
            values = self.columns[name]
            digest.update(f"{name}=".encode())
            for value in values if isinstance(values, tuple) else (values,):
                digest.update(np.asarray(value).tobytes() + b"|")
        return digest.digest()


@dataclass(frozen=True, slots=True, eq=False)
class TokenTrie:
    """The tree (or trees: contexts may differ from their first token on) of some cells.

    ``ids``, ``parent``, ``depth`` and ``end`` have one number per node: the token, the parent's number (-1 at
    a root), the distance from the root, and the number after the last node of the subtree. ``paths`` holds,
    for every cell, the nodes of its response tokens.
    """

    ids: IntArray
    parent: IntArray
    depth: IntArray
    end: IntArray
    paths: tuple[IntArray, ...]

    @classmethod
    def build(cls, cells: Sequence[Cell], *, share_response_prefixes: bool = True) -> TokenTrie:
        """Merge the cells' token sequences, children in the order in which cells first need them; without
        ``share_response_prefixes`` only contexts merge."""
        sequences = [np.concatenate((cell.context, cell.response)) for cell in cells]
        limits = [
            len(sequence) if share_response_prefixes else len(cell.context)
            for cell, sequence in zip(cells, sequences, strict=True)
        ]
        chains = _chains(sequences, limits)
        starts = [chain.start for chain in chains]
        lengths = [len(chain.ids) for chain in chains]
        nodes = starts[-1] + lengths[-1] if chains else 0

        parent = np.arange(-1, nodes - 1)
        parent[starts] = [chain.parent for chain in chains]
        paths = [np.empty(len(sequence), np.int64) for sequence in sequences]
        for chain in chains:
            numbers = np.arange(chain.start, chain.start + len(chain.ids))
            for member in chain.members:
                paths[member][chain.depth : chain.depth + len(numbers)] = numbers
        offsets = np.asarray([chain.depth - chain.start for chain in chains], np.int64)
        return cls(
            ids=np.concatenate([chain.ids for chain in chains]) if chains else np.empty(0, np.int64),
            parent=parent,
            depth=np.arange(nodes) + np.repeat(offsets, lengths),
            end=np.repeat(np.asarray([chain.end for chain in chains], np.int64), lengths),
            paths=tuple(path[len(cell.context) :] for path, cell in zip(paths, cells, strict=True)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def attention_pairs(self) -> int:
        """Number of (query, key) pairs that the ancestor rule allows."""
        return int(self.depth.sum()) + len(self)


@dataclass(slots=True)
class _Chain:
    """Consecutive nodes without a branch between them, below the last node of the chain ``above``."""

    start: int
    depth: int
    parent: int
    ids: IntArray
    members: list[int]
    end: int
    above: _Chain | None


def _chains(sequences: list[IntArray], limits: list[int]) -> list[_Chain]:
    """The tree's chains in depth-first order; the first has what all sequences begin with, perhaps nothing. A
    sequence shares at most as many tokens as its limit says."""
    chains: list[_Chain] = []
    nodes = 0
    waiting: list[tuple[list[int], int, int, _Chain | None]] = []
    if sequences:
        waiting.append((list(range(len(sequences))), 0, -1, None))
    while waiting:
        members, depth, parent, above = waiting.pop()
        first = members[0]
        stop = len(sequences[first])
        for other in members[1:]:
            limit = min(stop, limits[first], limits[other])
            stop = depth + common(sequences[first][depth:limit], sequences[other][depth:limit])
        end = nodes + stop - depth
        chain = _Chain(nodes, depth, parent, sequences[first][depth:stop], members, end, above)
        chains.append(chain)
        nodes = end
        branches: dict[tuple[str, int], list[int]] = {}
        for member in members:
            if stop < len(sequences[member]):
                key = ("token", int(sequences[member][stop])) if stop < limits[member] else ("cell", member)
                branches.setdefault(key, []).append(member)
        waiting += [(branch, stop, end - 1, chain) for branch in reversed(branches.values())]
    for chain in reversed(chains):
        if chain.above is not None:
            chain.above.end = max(chain.above.end, chain.end)
    return chains


def common(first: IntArray, second: IntArray) -> int:
    """Length of the common beginning."""
    length = min(len(first), len(second))
    differing = first[:length] != second[:length]
    at = int(differing.argmax()) if length else 0
    return at if length and differing[at] else length


def unique_tokens(cells: Sequence[Cell]) -> int:
    """The number of nodes that the cells' trie will have, without building it."""
    paths = [np.concatenate([cell.context, cell.response]) for cell in cells]
    if len(paths) > 2:
        paths.sort(key=lambda path: path.astype(">i8").tobytes())
    return sum(map(len, paths)) - sum(common(path, after) for path, after in pairwise(paths))
