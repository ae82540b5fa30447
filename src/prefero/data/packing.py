"""Several examples in one row: a forest of token trees, and where each cell finds its numbers in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.data.images import Arrays, ImageBatch
from prefero.data.trie import Cell, IntArray, TokenExample, TokenTrie


@dataclass(frozen=True, slots=True, eq=False)
class CellIndex:
    """Where the cells of one view stand in a :class:`Forest`.

    ``index`` holds positions in the forest's scored axis, -1 where a response has no scored token (padding,
    holes). ``last`` is the node of the final response token, ``prompt_last`` that of the final context token.
    Examples with fewer responses than others are filled up: ``index`` -1, ``last`` and ``prompt_last`` 0.
    """

    index: Int[Tensor, "example response token"]
    last: Int[Tensor, "example response"]
    prompt_last: Int[Tensor, "example response"]

    def gather(self, values: Float[Tensor, "scored"]) -> Float[Tensor, "example response token"]:
        """Numbers of the forest's scored nodes, arranged by cell; 0 where there is none."""
        return values[self.index.clamp(min=0)].masked_fill(self.index < 0, 0.0)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CellIndex:
        return CellIndex(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """A packed row: the tries of some examples one after another.

    ``trees`` are the (start, stop) nodes of each root's subtree. ``scored`` are the nodes whose
    log-probability is wanted, each once however many cells read it; ``readout`` are the nodes whose logits
    give them, each once, and ``slot`` says which of these belongs to each scored node. ``cells`` maps view
    names (``""``: the examples themselves) to their places. Ids below 0 are those of ``images``.
    """

    ids: Int[Tensor, "node"]
    depth: Int[Tensor, "node"]
    end: Int[Tensor, "node"]
    trees: tuple[tuple[int, int], ...]
    scored: Int[Tensor, "scored"]
    readout: Int[Tensor, "readout"]
    slot: Int[Tensor, "scored"]
    cells: Mapping[str, CellIndex]
    images: ImageBatch | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def parent(self) -> Int[Tensor, "scored"]:
        """The node whose logits give each scored node's log-probability."""
        return self.readout[self.slot]

    @property
    def target(self) -> Int[Tensor, "scored"]:
        """The token of each scored node."""
        return self.ids[self.scored]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Forest:
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        cells = {view: index.to(device, non_blocking) for view, index in self.cells.items()}
        images = None if self.images is None else self.images.to(device, non_blocking)
        return replace(self, **moved, cells=cells, images=images)

    def padded_to(self, multiple: int) -> Forest:
        """The same forest with one-node trees appended until its length is a multiple of ``multiple``.

        Kernels compiled for fixed lengths want few different ones. No number of any cell changes.
        """
        extra = -len(self) % multiple
        if not extra:
            return self
        length, device = len(self), self.ids.device
        zeros = torch.zeros(extra, dtype=torch.int64, device=device)
        return replace(
            self,
            ids=torch.cat((self.ids, zeros)),
            depth=torch.cat((self.depth, zeros)),
            end=torch.cat((self.end, torch.arange(length + 1, length + extra + 1, device=device))),
            trees=(*self.trees, *((n, n + 1) for n in range(length, length + extra))),
        )


def pack(
    examples: Sequence[TokenExample],
    *,
    share_response_prefixes: bool = True,
    images: Mapping[int, Arrays] = MappingProxyType({}),
) -> Forest:
    """One row for these examples, views included. Every example needs the views that the first one has.

    ``images`` has what a processor made of the images that stand in prompts, by their keys.
    """
    views: dict[str, list[tuple[Cell, ...]]] = {"": [example.cells for example in examples]}
    for name in examples[0].views:
        views[name] = [example.views[name] for example in examples]

    tries, starts, nodes = [], [], 0
    for number in range(len(examples)):
        cells = [cell for rows in views.values() for cell in rows[number]]
        trie = TokenTrie.build(cells, share_response_prefixes=share_response_prefixes)
        tries.append(trie)
        starts.append(nodes)
        nodes += len(trie)

    def joined(name: str, shifted: bool) -> IntArray:
        return np.concatenate(
            [getattr(trie, name) + start * shifted for trie, start in zip(tries, starts, strict=True)]
        )

    parent = joined("parent", True)
    placed = {name: _Placed(rows) for name, rows in views.items()}
    wanted = np.zeros(nodes, bool)
    for number, (trie, start) in enumerate(zip(tries, starts, strict=True)):
        paths = iter(trie.paths)
        for name, rows in views.items():
            for response, cell in enumerate(rows[number]):
                path = next(paths) + start
                placed[name].put(number, response, cell, path, parent)
                wanted[path if cell.scored is None else path[cell.scored]] = True

    scored = np.flatnonzero(wanted)
    position = np.full(nodes + 1, -1)
    position[scored] = np.arange(len(scored))
    readout, slot = np.unique(parent[scored], return_inverse=True)
    edges = np.append(np.flatnonzero(joined("parent", False) < 0), nodes).tolist()
    return Forest(
        ids=torch.from_numpy(joined("ids", False)),
        depth=torch.from_numpy(joined("depth", False)),
        end=torch.from_numpy(joined("end", True)),
        trees=tuple(pairwise(edges)),
        scored=torch.from_numpy(scored),
        readout=torch.from_numpy(readout),
        slot=torch.from_numpy(slot),
        cells={name: place.index(position) for name, place in placed.items()},
        images=ImageBatch.of([trie.ids for trie in tries], images),
    )


class _Placed:
    """Nodes of the cells of one view, padded to a rectangle; node -1 means none."""

    def __init__(self, rows: Sequence[tuple[Cell, ...]]) -> None:
        responses = max(len(cells) for cells in rows)
        tokens = max(len(cell.response) for cells in rows for cell in cells)
        self.nodes = np.full((len(rows), responses, tokens), -1)
        self.last = np.zeros((len(rows), responses), np.int64)
        self.prompt_last = np.zeros((len(rows), responses), np.int64)

    def put(self, row: int, response: int, cell: Cell, path: IntArray, parent: IntArray) -> None:
        self.nodes[row, response, : len(path)] = (
            path if cell.scored is None else np.where(cell.scored, path, -1)
        )
        self.last[row, response] = path[-1]
        self.prompt_last[row, response] = parent[path[0]]

    def index(self, position: IntArray) -> CellIndex:
        """``position`` maps nodes to scored places and its last entry, which node -1 reads, to -1."""
        return CellIndex(
            torch.from_numpy(position[self.nodes]),
            torch.from_numpy(self.last),
            torch.from_numpy(self.prompt_last),
        )


def unique_tokens(example: TokenExample) -> int:
    """Nodes that the example's trie will have, views included: what it takes of a row's token budget."""
    cells = [*example.cells, *(cell for view in example.views.values() for cell in view)]
    return len(TokenTrie.build(cells))


def next_fit(order: Iterable[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fill one row after another in the given order, opening a new one when the next example does not fit.

    Source: the multipack sampler of prefix sharing (arXiv 2410.20305), which fills one row at a time. An
    example longer than ``capacity`` has a row to itself.
    """
    rows: list[list[int]] = []
    room = 0
    for number in order:
        if not rows or lengths[number] > room:
            rows.append([])
            room = capacity
        rows[-1].append(number)
        room -= lengths[number]
    return rows
