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
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    eager_mask,
    flex_attention_mask,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefero.data.packing import Forest
from prefero.models.branch_attention import BranchPlan, MaskRule

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
