"""What a model's layers hold at some nodes of a forest: states, and the means of their parts' activations."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prefero.data.packing import CellIndex
from prefero.errors import PreferoError
from prefero.objectives.batch import Signal

Kind = Literal["last", "layers", "mlp", "attention", "residual"]

_NAMES = {"mlp": ("mlp", "feed_forward", "ffn", "fc2"), "attention": ("attn", "attention")}
"""What families call the parts of a layer; a child's name contains one of these."""


class Arranged(Protocol):
    """Packed tokens, which know the node whose logits give each scored one's log-probability."""

    @property
    def parent(self) -> Int[Tensor, "scored"]: ...


@dataclass(frozen=True, slots=True, eq=False)
class StateRead:
    """What is wanted at some nodes: the ``last`` hidden state, the states after all ``layers``, or the mean
    activation of a part of every layer."""

    kind: Kind
    nodes: Int[Tensor, "*where"]
    there: Tensor | None = None

    @classmethod
    def of(cls, signal: Signal, forest: Arranged, cells: CellIndex) -> StateRead:
        """What a state signal reads for the cells of one view."""
        if signal.name == "state":
            return cls("last", cells.last)
        if signal.name == "prompt_state":
            return cls("last", cells.prompt_last)
        predicting = forest.parent[cells.index.clamp(min=0)]
        kinds: dict[str, Kind] = {"token_state": "last", "token_states": "layers"}
        kind: Any = kinds.get(signal.name) or dict(signal.options)["part"]
        return cls(kind, predicting, cells.index >= 0)

    def shaped(self, values: Float[Tensor, "node *trailing"]) -> Float[Tensor, "*where *trailing"]:
        """The values of the nodes in their places; 0 where no token is scored."""
        values = values.unflatten(0, self.nodes.shape)
        if self.there is None:
            return values
        return values.masked_fill(~self.there[(...,) + (None,) * (values.dim() - self.there.dim())], 0.0)


@contextmanager
def recorded(body: nn.Module, kinds: Collection[Kind]) -> Iterator[dict[Kind, list[Tensor]]]:
    """Inside, a forward of the body leaves the mean activations of the wanted parts, layer by layer, one
    number for every place of its input."""
    found: dict[Kind, list[Tensor]] = {kind: [] for kind in kinds if kind not in ("last", "layers")}
    with ExitStack() as hooks:
        for kind, means in found.items():
            for module in _parts(body, kind):
                hook = module.register_forward_hook(partial(_record, means))
                hooks.callback(hook.remove)
        yield found


def _record(means: list[Tensor], module: nn.Module, inputs: Any, output: Any) -> None:
    output = output if isinstance(output, Tensor) else output[0]
    means.append(output.detach().to(torch.promote_types(output.dtype, torch.float32)).mean(-1))


def _parts(body: nn.Module, kind: Kind) -> list[nn.Module]:
    """The part of every layer; raises :class:`PreferoError` where a layer shows none of its names."""
    layers = next(
        (
            module
            for name, module in body.named_modules()
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layers", "h", "blocks")
        ),
        None,
    )
    if layers is None:
        raise PreferoError(f"{type(body).__name__} shows no list of layers to read activations from")
    if kind == "residual":
        return list(layers)
    parts = []
    for layer in layers:
        children = dict(layer.named_children())
        named = [name for name in children if any(part in name for part in _NAMES[kind])]
        named = [name for name in named if "norm" not in name and "ln" not in name]
        if not named:
            raise PreferoError(
                f"a {type(layer).__name__} of {type(body).__name__} has no part that is called "
                f"{' or '.join(_NAMES[kind])}; it has {', '.join(children)}"
            )
        parts.append(children[named[0]])
    return parts
