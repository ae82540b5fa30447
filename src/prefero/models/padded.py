"""The layout without sharing: one right-padded row for each leaf of the forest.

Models whose state runs along the row cannot take a tree. In a causal model right padding needs no mask, so
this works for all of them; it also is what the other layouts are checked against.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from prefero.data.packing import Forest


@dataclass(frozen=True, slots=True, eq=False)
class PaddedRows:
    """``ids`` are the root-to-leaf paths. Node ``n`` stands at ``ids[row[n], depth[n]]``; wherever else it
    stands too, the model gives it the same numbers."""

    ids: Int[Tensor, "leaf position"]
    row: Int[Tensor, "node"]

    @classmethod
    def of(cls, forest: Forest) -> PaddedRows:
        node = torch.arange(len(forest), device=forest.ids.device)
        leaves = node[forest.end == node + 1]
        on_path = (node <= leaves[:, None]) & (leaves[:, None] < forest.end)
        row, ancestor = on_path.nonzero(as_tuple=True)
        ids = forest.ids.new_zeros(len(leaves), int(forest.depth.max()) + 1)
        ids[row, forest.depth[ancestor]] = forest.ids[ancestor]
        return cls(ids, torch.searchsorted(leaves, node))

    def places(self, forest: Forest, nodes: Int[Tensor, "some"]) -> Int[Tensor, "some"]:
        """Where nodes stand in the flattened ``ids``."""
        return self.row[nodes] * self.ids.shape[1] + forest.depth[nodes]
