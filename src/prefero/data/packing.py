"""Several examples in one micro-batch: a forest of token trees, with the places of each cell's numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float, Int
from torch import Tensor

from prefero.data.images import MOST_TOKENS, Arrays, Ids, keys_of
from prefero.data.trie import Cell, IntArray, TokenExample, TokenTrie
from prefero.errors import PreferoError


class OnDevice:
    """A dataclass whose tensors move to a device together, those in mappings and tuples too."""

    __slots__ = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same with its tensors on a device."""
        parts: Any = self
        values = {part.name: getattr(self, part.name) for part in fields(parts)}
        return replace(parts, **send_to_device(values, device, non_blocking))


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch(OnDevice):
    """The distinct images of a micro-batch: their ``keys`` in order, the number of tokens and the arrays."""

    keys: Int[Tensor, "image"]
    counts: Int[Tensor, "image"]
    arrays: tuple[Arrays, ...]

    @classmethod
    def of(cls, ids: Iterable[Ids], arrays: Mapping[int, Arrays]) -> ImageBatch | None:
        """The images among ``ids``, or None. Raises :class:`PreferoError` where one is not among the
        arrays."""
        tokens = np.unique(np.concatenate([row[row < 0] for row in ids]))
        keys, counts = np.unique(keys_of(tokens), return_counts=True)
        if not len(keys):
            return None
        if missing := set(keys.tolist()) - set(arrays):
            raise PreferoError(
                f"{len(missing)} of the {len(keys)} images of a micro-batch were not given to pack(): read "
                "the data with the kind of vision-language models, which keeps them"
            )
        return cls(torch.from_numpy(keys), torch.from_numpy(counts), tuple(arrays[int(key)] for key in keys))

    def places(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "token"]:
        """The positions of the image tokens among ``ids``, in their order, among the tokens of all images."""
        tokens = ids[ids < 0]
        starts = self.counts.cumsum(0) - self.counts
        return starts[torch.searchsorted(self.keys, keys_of(tokens))] + (~tokens & (MOST_TOKENS - 1))

    def shown(self, ids: Int[Tensor, "*shape"]) -> list[int]:
        """The numbers of the images whose first token is among ``ids``, in the order in which they are."""
        first = ids[(ids < 0) & ((~ids & (MOST_TOKENS - 1)) == 0)]
        return torch.searchsorted(self.keys, keys_of(first)).tolist()


@dataclass(frozen=True, slots=True, eq=False)
class CellIndex(OnDevice):
    """The places of the cells of one view in a :class:`Forest`.

    ``index`` holds positions in the forest's scored axis, -1 where a response has no scored token. ``last``
    is the node of the final response token, ``prompt_last`` that of the final context token. Examples with
    fewer responses than others are filled up: ``index`` -1, ``last`` and ``prompt_last`` 0.
    """

    index: Int[Tensor, "example response token"]
    last: Int[Tensor, "example response"]
    prompt_last: Int[Tensor, "example response"]

    def gather(self, values: Float[Tensor, "scored"]) -> Float[Tensor, "example response token"]:
        """Numbers of the forest's scored nodes, arranged by cell; 0 where there is none."""
        return values[self.index.clamp(min=0)].masked_fill(self.index < 0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Forest(OnDevice):
    """A packed micro-batch: the tries of some examples one after another.

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

    def padded_to(self, multiple: int) -> Forest:
        """The same forest with one-node trees appended until its length is a multiple of ``multiple``:
        kernels compiled for fixed lengths want few different ones. No number of any cell changes."""
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


def by_view(examples: Sequence[TokenExample]) -> dict[str, list[tuple[Cell, ...]]]:
    """The cells of examples, their own (``""``) and those of the views that the first one has."""
    views = {view: [example.views[view] for example in examples] for view in examples[0].views}
    return {"": [example.cells for example in examples], **views}


def pack(
    examples: Sequence[TokenExample],
    *,
    share_response_prefixes: bool = True,
    images: Mapping[int, Arrays] = MappingProxyType({}),
) -> Forest:
    """One micro-batch of these examples, views included; all of them need the views that the first one has.
    ``images`` has the arrays of the images that stand in prompts, by their keys."""
    views = by_view(examples)
    tries: list[TokenTrie] = []
    starts: list[int] = []
    paths: dict[str, list[list[IntArray]]] = {name: [] for name in views}
    nodes = 0
    for number in range(len(examples)):
        cells = [cell for rows in views.values() for cell in rows[number]]
        trie = TokenTrie.build(cells, share_response_prefixes=share_response_prefixes)
        of_cells = iter(trie.paths)
        for name, rows in views.items():
            paths[name].append([next(of_cells) + nodes for _ in rows[number]])
        tries.append(trie)
        starts.append(nodes)
        nodes += len(trie)

    ids, parent, depth, end = (
        np.concatenate([getattr(trie, name) for trie in tries]) for name in ("ids", "parent", "depth", "end")
    )
    roots = np.flatnonzero(parent < 0)
    shift = np.repeat(starts, np.diff([*starts, nodes]))
    parent, end = parent + shift, end + shift
    placed = {name: _placed(rows, paths[name], parent) for name, rows in views.items()}
    wanted = np.zeros(nodes + 1, bool)
    for scored_nodes, _, _ in placed.values():
        wanted[scored_nodes] = True
    # Node -1 stands for none, and reads and writes the entry behind the last node.
    scored = np.flatnonzero(wanted[:-1])
    position = np.full(nodes + 1, -1)
    position[scored] = np.arange(len(scored))
    readout, slot = np.unique(parent[scored], return_inverse=True)
    return Forest(
        ids=torch.from_numpy(ids),
        depth=torch.from_numpy(depth),
        end=torch.from_numpy(end),
        trees=tuple(pairwise([*roots.tolist(), nodes])),
        scored=torch.from_numpy(scored),
        readout=torch.from_numpy(readout),
        slot=torch.from_numpy(slot),
        cells={
            name: CellIndex(*map(torch.from_numpy, (position[scored_nodes], last, prompt_last)))
            for name, (scored_nodes, last, prompt_last) in placed.items()
        },
        images=ImageBatch.of([ids], images) if (ids < 0).any() else None,
    )


def _placed(
    rows: Sequence[tuple[Cell, ...]], paths: Sequence[Sequence[IntArray]], parent: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """The nodes of the cells' scored tokens (-1: none), of their last tokens, and of the last tokens of their
    contexts, padded to rectangles of examples by responses (by tokens)."""
    responses = max(len(cells) for cells in rows)
    tokens = max(len(cell.response) for cells in rows for cell in cells)
    nodes = np.full((len(rows), responses, tokens), -1)
    last, prompt_last = np.zeros((2, len(rows), responses), np.int64)
    for row, (cells, own) in enumerate(zip(rows, paths, strict=True)):
        for response, (cell, path) in enumerate(zip(cells, own, strict=True)):
            nodes[row, response, : len(path)] = (
                path if cell.scored is None else np.where(cell.scored, path, -1)
            )
            last[row, response] = path[-1]
            prompt_last[row, response] = parent[path[0]]
    return nodes, last, prompt_last


def next_fit(order: Iterable[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fill one bin after another in the given order, opening a new one when the next example does not fit;
    one longer than ``capacity`` has a bin to itself. Source: multipack sampling, arXiv 2410.20305."""
    bins: list[list[int]] = []
    room = 0
    for number in order:
        if not bins or lengths[number] > room:
            bins.append([])
            room = capacity
        bins[-1].append(number)
        room -= lengths[number]
    return bins
