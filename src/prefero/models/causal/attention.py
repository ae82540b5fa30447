"""Attention over a forest: every token sees its ancestors and nothing else.

Transformers builds one mask per layer type by calling a registered mask function with the family's own rule
(causal, sliding window, chunk). The functions registered here pass everything through, except while a scoring
forward runs (:func:`attending`): then the rule is evaluated on depths instead of row positions, because
siblings lie far apart in the row and close in depth.

There are three packings: ``"trees"`` calls the kernel once per branch, ``"dense"`` makes one mask of the
whole forest, ``"flex"`` gives FlexAttention the rule. Models that take none of them read the paths of the
forest as separate rows, :class:`PathRows`. The folder's README says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, update_wrapper
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

ForestPacking = Literal["trees", "dense", "flex"]

MaskRule = Callable[[Any, Any, Tensor, Tensor], Tensor]
"""Whether a query may see a key: (batch, head, query, key) indices to truth values."""

_active: ContextVar[tuple[Forest, ForestPacking, bool] | None] = ContextVar("active_forest", default=None)


@contextmanager
def attending(forest: Forest, packing: ForestPacking, *, blocks: bool = False) -> Iterator[None]:
    """Make masks that are built inside this context follow the forest, once :func:`register` has run. With
    ``blocks``, the tokens of an image see those behind them in the image too."""
    token = _active.set((forest, packing, blocks))
    try:
        yield
    finally:
        _active.reset(token)


# Registered with transformers


def register() -> None:
    """Put the forest-aware functions under transformers' standard names; a second call changes nothing."""
    for name, base in {"sdpa": sdpa_mask, "eager": eager_mask, "flex_attention": flex_attention_mask}.items():
        if ALL_MASK_ATTENTION_FUNCTIONS[name] is base:
            aware = update_wrapper(partial(_forest_aware_mask, name, base), base)
            AttentionMaskInterface.register(name, aware)
    base = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if getattr(base, "func", None) is not _forest_aware_attention:
        AttentionInterface.register("sdpa", update_wrapper(partial(_forest_aware_attention, base), base))


def _forest_aware_mask(
    name: str,
    base: Callable[..., Any],
    *,
    mask_function: MaskRule,
    attention_mask: Any = None,
    **kwargs: Any,
) -> Any:
    """The mask function ``base``, which transformers has under ``name``, for the forest that is attended."""
    active = _active.get()
    if active is None:
        return base(mask_function=mask_function, attention_mask=attention_mask, **kwargs)
    forest, packing, whole_images = active
    plan: BranchPlan | FlexPlan
    if name == "sdpa" and packing == "trees":
        if whole_images:
            raise NotImplementedError("a branch is causal")
        plan = BranchPlan(forest, mask_function)
    else:
        rule = ancestor_rule(forest, mask_function)
        if whole_images:
            rule = within_images(forest, rule)
        kwargs["allow_is_causal_skip"] = False
        if name != "sdpa" or packing != "flex":
            return base(mask_function=rule, attention_mask=None, **kwargs)
        plan = FlexPlan(flex_attention_mask(**kwargs, mask_function=rule, attention_mask=None))
    # The mask is an argument of every layer, so its plan is there again when backward recomputes a layer.
    length = len(forest)
    carrier = torch.ones((), dtype=torch.bool, device=forest.ids.device).expand(1, 1, length, length)
    carrier.forest_plan = plan  # type: ignore[attr-defined]
    return carrier


def _forest_aware_attention(
    base: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention function ``base``, unless the mask carries a plan."""
    plan = getattr(attention_mask, "forest_plan", None)
    if plan is None:
        return base(module, query, key, value, attention_mask, **kwargs)
    return plan.attend(module, query, key, value, **kwargs)


# Rules of visibility


def ancestor_rule(forest: Forest, rule: MaskRule) -> MaskRule:
    """The family's rule in depth coordinates, restricted to ancestors; indices are those of the row."""
    end, depth = forest.end, forest.depth

    def visible(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[key]) & rule(batch, head, depth[query], depth[key])

    return visible


def within_images(forest: Forest, rule: MaskRule) -> MaskRule:
    """The rule, and every token of an image for all its others."""
    image = forest.ids < 0
    continues = torch.zeros_like(image)
    continues[1:] = image[1:] & image[:-1] & (forest.depth[1:] == forest.depth[:-1] + 1)
    block = (image & ~continues).cumsum(0) * image

    def visible(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        ahead = (key > query) & (block[query] == block[key]) & (block[query] > 0)
        return rule(batch, head, query, key) | ahead

    return visible


# Plans: how a layer attends


@dataclass(frozen=True, slots=True)
class FlexPlan:
    """FlexAttention with a block mask under SDPA's name, so that configuration and generation stay as they
    are."""

    blocks: Any

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
    ) -> tuple[Tensor, None]:
        output, _ = flex_attention_forward(module, query, key, value, self.blocks, **kwargs)
        return output, None


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
    """One call of the SDPA kernel per branch, under the rule of one layer type."""

    def __init__(self, forest: Forest, rule: MaskRule) -> None:
        self.chains, self.branches = branches_of(forest)
        self._rule, self._device = rule, forest.ids.device
        self._masks: dict[torch.dtype, list[Tensor | None]] = {}

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
        """The contract of transformers' attention functions, for the forest of this plan."""
        for name in ("softcap", "position_bias", "s_aux"):
            if kwargs.get(name) is not None:
                raise NotImplementedError(f"SDPA takes no {name}")
        dtype, on_cpu = value.dtype, query.device.type == "cpu"
        if on_cpu:  # half-precision kernels are slower in backward than float32 ones, and know grouped heads
            wide = torch.promote_types(query.dtype, torch.float32)
            query, key, value = query.to(wide), key.to(wide), value.to(wide)
        else:
            groups = query.shape[1] // key.shape[1]
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        queries = query.split([branch.length for branch in self.branches], 2)
        keys, values = (x.transpose(1, 2).split(self.chains, 1) for x in (key, value))
        outputs = []
        with torch.autocast("cpu", enabled=False):
            for branch, own, mask in zip(self.branches, queries, self.masks(query.dtype), strict=True):
                seen, read = (_joined([x[chain] for chain in branch.chains]) for x in (keys, values))
                attended = F.scaled_dot_product_attention(
                    own, seen, read, mask, dropout, mask is None, scale=scaling, enable_gqa=on_cpu
                )
                outputs.append(attended.transpose(1, 2))
        output = torch.cat(outputs, 1)
        return output.to(dtype) if on_cpu else output, None

    def masks(self, dtype: torch.dtype) -> list[Tensor | None]:
        """An additive mask per branch; ``None`` for a plain causal chain, whose last node sees the whole
        path."""
        if dtype not in self._masks:
            plain = [
                branch.length == branch.path
                and bool(self._visible(branch.path - 1, branch.path, branch.path).all())
                for branch in self.branches
            ]
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

    def _visible(self, start: int, stop: int, keys: int) -> Tensor:
        """The rule for queries at the depths from start to stop and keys at the first depths of a path."""
        query = torch.arange(start, stop, device=self._device)[None, None, :, None]
        key = torch.arange(keys, device=self._device)[None, None, None, :]
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=self._device)
        return ((key <= query) & self._rule(zero, zero, query, key))[0, 0]


def _joined(chains: list[Tensor]) -> Tensor:
    """The chains of one path, heads in front of nodes; one chain alone is not copied."""
    return (chains[0] if len(chains) == 1 else torch.cat(chains, 1)).transpose(1, 2)


# Without a forest mask


@dataclass(frozen=True, slots=True, eq=False)
class PathRows:
    """The root-to-leaf paths of a forest as right-padded rows, for models that take no forest mask. Node
    ``n`` stands at ``ids[row[n], depth[n]]``; wherever else it stands too, the model gives it the same
    numbers."""

    ids: Int[Tensor, "leaf position"]
    row: Int[Tensor, "node"]

    @classmethod
    def of(cls, forest: Forest) -> PathRows:
        node = torch.arange(len(forest), device=forest.ids.device)
        leaves = node[forest.end == node + 1]
        on_path = (node <= leaves[:, None]) & (leaves[:, None] < forest.end)
        row, ancestor = on_path.nonzero(as_tuple=True)
        ids = forest.ids.new_zeros(len(leaves), int(forest.depth.max()) + 1)
        ids[row, forest.depth[ancestor]] = forest.ids[ancestor]
        return cls(ids, torch.searchsorted(leaves, node))

    def places(self, forest: Forest, nodes: Int[Tensor, "some"]) -> Int[Tensor, "some"]:
        """The places of nodes in the flattened ``ids``."""
        return self.row[nodes] * self.ids.shape[1] + forest.depth[nodes]
