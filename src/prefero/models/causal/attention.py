"""Attention over a forest: every token sees its ancestors and nothing else.

Transformers builds one mask per layer type by calling a registered mask function with the family's own rule
(causal, sliding window, chunk). The functions registered here stand under the standard names and pass
everything through, except while a scoring forward runs: then the rule is evaluated on depths instead of row
positions, because siblings lie far apart in the row and close in depth.

Layouts of a forest row: ``"trees"`` calls the kernel once a branch, ``"dense"`` makes one mask of the whole
row, ``"flex"`` gives FlexAttention the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    eager_mask,
    flex_attention_mask,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefero.data.packing import Forest

ForestLayout = Literal["trees", "dense", "flex"]

_active: ContextVar[tuple[Forest, ForestLayout, bool] | None] = ContextVar("active_forest", default=None)


@contextmanager
def attending(forest: Forest, layout: ForestLayout, *, blocks: bool = False) -> Iterator[None]:
    """Masks built inside this context follow the forest; :func:`register` has to have run before. With
    ``blocks``, the tokens of an image see those behind them in the image too."""
    token = _active.set((forest, layout, blocks))
    try:
        yield
    finally:
        _active.reset(token)


def register() -> None:
    """Put the forest-aware functions under transformers' standard names; a second call changes nothing."""
    for name, base in {"sdpa": sdpa_mask, "eager": eager_mask, "flex_attention": flex_attention_mask}.items():
        if ALL_MASK_ATTENTION_FUNCTIONS[name] is base:
            AttentionMaskInterface.register(name, _forest_aware_mask(name, base))
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if not hasattr(attend, "forest_aware"):
        AttentionInterface.register("sdpa", _forest_aware_attention(attend))


def ancestor_rule(forest: Forest, rule: MaskRule) -> MaskRule:
    """The family's rule in depth coordinates, restricted to ancestors; indices are those of the row."""
    end, depth = forest.end, forest.depth

    def visible(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[key]) & rule(batch, head, depth[query], depth[key])

    return visible


def within_images(forest: Forest, rule: MaskRule) -> MaskRule:
    """The rule, and each image whole for every one of its tokens."""
    image = forest.ids < 0
    goes_on = torch.zeros_like(image)
    goes_on[1:] = image[1:] & image[:-1] & (forest.depth[1:] == forest.depth[:-1] + 1)
    block = (image & ~goes_on).cumsum(0) * image

    def visible(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        ahead = (key > query) & (block[query] == block[key]) & (block[query] > 0)
        return rule(batch, head, query, key) | ahead

    return visible


def _forest_aware_mask(name: str, base: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(base)
    def build(*, mask_function: MaskRule, attention_mask: Any = None, **kwargs: Any) -> Any:
        active = _active.get()
        if active is None:
            return base(mask_function=mask_function, attention_mask=attention_mask, **kwargs)
        forest, layout, whole_images = active
        if name == "sdpa" and layout == "trees":
            if whole_images:
                raise NotImplementedError("a branch is causal")
            return BranchPlan(forest, mask_function).carrier
        rule = ancestor_rule(forest, mask_function)
        if whole_images:
            rule = within_images(forest, rule)
        kwargs["allow_is_causal_skip"] = False
        if name == "sdpa" and layout == "flex":
            blocks = flex_attention_mask(**kwargs, mask_function=rule, attention_mask=None)
            return FlexRule(blocks, forest).carrier
        return base(mask_function=rule, attention_mask=None, **kwargs)

    return build


def _forest_aware_attention(base: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(base)
    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        plan = getattr(attention_mask, "forest_plan", None)
        if plan is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        return plan.attend(module, query, key, value, **kwargs)

    attend.forest_aware = True  # type: ignore[attr-defined]
    return attend


class FlexRule:
    """A block mask under the name of SDPA: the model stays as it was loaded, and generation with it."""

    def __init__(self, blocks: Any, forest: Forest) -> None:
        self.blocks = blocks
        length = len(forest)
        self.carrier = torch.ones((), dtype=torch.bool, device=forest.ids.device).expand(1, 1, length, length)
        self.carrier.forest_plan = self  # type: ignore[attr-defined]

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
    ) -> tuple[Tensor, None]:
        output, _ = flex_attention_forward(module, query, key, value, self.blocks, **kwargs)
        return output, None


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
