"""Attention over a forest, one kernel call a branch.

A branch is a run of consecutive nodes down to a leaf: the first response of a tree together with its prompt,
then each further response from where it leaves the others. Its keys are the path from the root, at depths
0, 1, 2, …, so every branch's mask is a block of one matrix: the family's rule over depths. The cost is the
sum of (branch × path); nothing is computed for what another branch contains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv

from prefero.data.packing import Forest

MaskRule = Callable[[Any, Any, Tensor, Tensor], Tensor]
"""Whether a query may see a key: (batch, head, query, key) indices to truth values."""


@dataclass(frozen=True, slots=True)
class Branch:
    """``length`` nodes whose keys are ``path`` nodes, those of the chains with these numbers."""

    length: int
    path: int
    chains: tuple[int, ...]


def branches_of(forest: Forest) -> tuple[list[int], list[Branch]]:
    """Lengths of the forest's chains (runs of nodes without a branching between them), and its branches."""
    ends = forest.end.tolist()
    starts = [n for n in range(len(ends)) if n == 0 or ends[n] != ends[n - 1]]
    stops = [*starts[1:], len(ends)]
    lengths = [stop - start for start, stop in zip(starts, stops, strict=True)]
    branches: list[Branch] = []
    path: list[int] = []
    first = 0
    for chain, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        while path and ends[starts[path[-1]]] <= start:
            path.pop()
        path.append(chain)
        if ends[start] == stop:
            own = sum(lengths[first : chain + 1])
            branches.append(Branch(own, sum(lengths[c] for c in path), tuple(path)))
            first = chain + 1
    return lengths, branches


class BranchPlan:
    """How a layer type attends.

    Layers are handed :attr:`carrier`, a mask tensor that knows its plan. Being an argument of every layer,
    it is there again when a layer is recomputed in backward.
    """

    def __init__(self, forest: Forest, rule: MaskRule) -> None:
        self.chains, self.branches = branches_of(forest)
        self._rule, self._device = rule, forest.ids.device
        self._masks: dict[torch.dtype, list[Tensor | None]] = {}
        length = len(forest)
        self.carrier = torch.ones((), dtype=torch.bool, device=self._device).expand(1, 1, length, length)
        self.carrier.forest_plan = self  # type: ignore[attr-defined]

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "1 head node channel"],
        key: Float[Tensor, "1 group node channel"],
        value: Float[Tensor, "1 group node channel"],
        scaling: float | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "1 node head channel"], None]:
        """The attention function's contract, for the row that this plan was made for.

        On the CPU half-precision kernels are slower in backward than float32 ones, and know grouped heads.
        """
        for name in ("softcap", "position_bias", "s_aux"):
            if kwargs.get(name) is not None:
                raise NotImplementedError(f"SDPA takes no {name}")
        if query.device.type == "cpu":
            wide = torch.promote_types(query.dtype, torch.float32)
            with torch.autocast("cpu", enabled=False):
                output = self._attend(query.to(wide), key.to(wide), value.to(wide), scaling, dropout, True)
            return output.to(value.dtype), None
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return self._attend(query, key, value, scaling, dropout, False), None

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        dropout: float,
        grouped: bool,
    ) -> Tensor:
        queries = query.split([branch.length for branch in self.branches], 2)
        keys, values = (x.transpose(1, 2).split(self.chains, 1) for x in (key, value))
        parts = []
        for branch, own, mask in zip(self.branches, queries, self.masks(query.dtype), strict=True):
            seen, read = (_joined([x[chain] for chain in branch.chains]) for x in (keys, values))
            part = F.scaled_dot_product_attention(
                own, seen, read, mask, dropout, mask is None, scale=scaling, enable_gqa=grouped
            )
            parts.append(part.transpose(1, 2))
        return torch.cat(parts, 1)

    def masks(self, dtype: torch.dtype) -> list[Tensor | None]:
        """Additive masks, made once a forward; ``None`` for a branch that is a plain causal chain."""
        if dtype not in self._masks:
            plain = [self._is_plain(branch) for branch in self.branches]
            masked = [branch for branch, is_plain in zip(self.branches, plain, strict=True) if not is_plain]
            lowest = min((branch.path - branch.length for branch in masked), default=0)
            highest = max((branch.path for branch in masked), default=0)
            visible = self._visible(lowest, highest, highest)
            bias = torch.zeros(visible.shape, dtype=dtype, device=self._device)
            bias.masked_fill_(~visible, -torch.inf)
            self._masks[dtype] = [
                None
                if is_plain
                else bias[branch.path - branch.length - lowest : branch.path - lowest, : branch.path]
                for branch, is_plain in zip(self.branches, plain, strict=True)
            ]
        return self._masks[dtype]

    def _is_plain(self, branch: Branch) -> bool:
        """Whether its last node sees the whole path, and so every other node all that is before it."""
        if branch.length != branch.path:
            return False
        return bool(self._visible(branch.path - 1, branch.path, branch.path).all())

    def _visible(self, start: int, stop: int, keys: int) -> Tensor:
        query = torch.arange(start, stop, device=self._device)[None, None, :, None]
        key = torch.arange(keys, device=self._device)[None, None, None, :]
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=self._device)
        return ((key <= query) & self._rule(zero, zero, query, key))[0, 0]


def _joined(parts: list[Tensor]) -> Tensor:
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).transpose(1, 2)
