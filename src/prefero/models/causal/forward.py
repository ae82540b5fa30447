"""What a model's layers hold at some nodes of a forest: states, and the means of their parts' activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.packing import CellIndex, Forest
from prefero.errors import PreferoError
from prefero.models.causal.attention import PaddedRows, attending
from prefero.models.head import BiasedHead, LogitRule, read_head, wide
from prefero.models.signals import Meter
from prefero.models.vision_language.images import forest_inputs, row_inputs
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


def last_feed_forward(body: nn.Module) -> nn.Module | None:
    """The position-wise part of the last layer, where it has the usual name; wrapped layers show none."""
    layers = getattr(body, "layers", getattr(body, "h", None))
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    found = dict(layers[-1].named_children()).get("mlp")
    return found if found is not None and "forward" not in vars(found) else None


@contextmanager
def only_at(feed_forward: nn.Module, places: Int[Tensor, "place"]) -> Iterator[None]:
    """Inside, ``feed_forward`` works at ``places`` of its flattened input and gives 0 elsewhere; these are
    distinct."""
    whole = feed_forward.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        read = whole(hidden.flatten(0, -2)[None].index_select(1, places), *args, **kwargs)
        if not isinstance(read, Tensor):
            raise TypeError("the last feed-forward gives more than its output")
        rows = hidden.shape[:-1].numel()
        return (
            read.new_zeros(rows, read.shape[-1])
            .index_copy(0, places, read[0])
            .unflatten(0, hidden.shape[:-1])
        )

    feed_forward.forward = forward
    try:
        yield
    finally:
        del feed_forward.forward


Packing = Literal["trees", "dense", "flex", "padded"]

FLEX_BLOCK = 128
"""Rows for FlexAttention are multiples of its block."""


@dataclass(slots=True)
class Adapted:
    """How a model is scored.

    ``own_head``: its logits come from its own forward, because its head is not what its configuration says.
    ``trims``: the last feed-forward runs only where it is read. ``blocks``: all tokens of an image see each
    other. ``sees``: all this was checked with images too.
    """

    layout: Packing
    own_head: bool = False
    trims: bool = False
    blocks: bool = False
    sees: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ScoreForest:
    """Log-probabilities of the scored nodes, signals of the readout rows, and what ``states`` read."""

    forest: Forest
    signals: tuple[Signal, ...]
    states: tuple[StateRead, ...]
    others: Mapping[str, OtherRows]

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> tuple[Tensor, ...]:
        forest = self.forest
        rows, *states = _run(model, adapted, forest, self.states)
        meter = Meter(
            self.signals, {name: other.logits(model, adapted) for name, other in self.others.items()}
        )
        logps, signals = read_head(*output_head(model, adapted), rows, forest.slot, forest.target, meter)
        return logps, *states, *signals


@dataclass(frozen=True, slots=True, eq=False)
class ReadoutRows:
    """What the head reads at the readout nodes: the part of a second model that costs a body forward."""

    forest: Forest

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> Tensor:
        return _run(model, adapted, self.forest)[0]


@dataclass(frozen=True, slots=True, eq=False)
class HeadLogits:
    """Only the head, on rows from :class:`ReadoutRows`."""

    rows: Float[Tensor, "readout hidden"]

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> Tensor:
        head, rule = output_head(model, adapted)
        return wide(rule(head(self.rows)))


@dataclass(frozen=True, slots=True, eq=False)
class OtherRows:
    """A second model's readout rows, and how to get its logits chunk by chunk.

    ``context`` is entered around its head too; where the second model is the first one under another context
    (adapters off), its head is called from within, because a wrapped module must not call itself.
    """

    model: nn.Module
    inner: PreTrainedModel
    context: Callable[[], AbstractContextManager[Any]]
    ids: Int[Tensor, "1 node"]
    rows: Float[Tensor, "readout hidden"]

    def logits(self, caller: PreTrainedModel, adapted: Adapted) -> Callable[[int, int], Tensor]:
        def chunk(start: int, stop: int) -> Tensor:
            head = HeadLogits(self.rows[start:stop])
            with torch.no_grad(), self.context():
                if self.inner is caller:
                    return head(caller, adapted)
                return self.model(input_ids=self.ids, scoring=head)

        return chunk


def output_head(model: PreTrainedModel, adapted: Adapted) -> tuple[nn.Module, LogitRule]:
    """What makes logits of the rows that a scoring pass hands to the head."""
    if adapted.own_head:
        return nn.Identity(), LogitRule()
    head = model.get_output_embeddings()
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None and bias.any():
        head = BiasedHead(head, bias)
    return head, LogitRule.of(model.config.get_text_config())


def _run(
    model: PreTrainedModel, adapted: Adapted, forest: Forest, states: Sequence[StateRead] = ()
) -> list[Float[Tensor, "node *trailing"]]:
    """Rows for the head (hidden states, or logits with ``own_head``), and what each of ``states`` reads."""
    inputs: dict[str, Any]
    around: AbstractContextManager[Any]
    if adapted.layout == "padded":
        padded = PaddedRows.of(forest)
        inputs = {"input_ids": padded.ids}
        if forest.images is not None:
            inputs |= row_inputs(model, body(model), forest, padded.ids)
        around = nullcontext()
        readout = padded.places(forest, forest.readout)
        places = [padded.places(forest, read.nodes.flatten()) for read in states]
    else:
        readout, places = forest.readout, [read.nodes.flatten() for read in states]
        if adapted.layout == "flex":
            forest = forest.padded_to(_flex_multiple(len(forest)))
        ids = forest.ids[None]
        inputs = {
            "input_ids": ids,
            "position_ids": forest.depth[None],
            "attention_mask": torch.ones_like(ids),
        }
        if forest.images is not None:
            inputs |= forest_inputs(model, body(model), forest)
        around = attending(forest, adapted.layout, blocks=adapted.blocks)

    read = torch.cat((readout, *places)).unique() if states else readout
    kinds = {read.kind for read in states}
    asked: dict[str, Any] = {"use_cache": False, "return_dict": True}
    if "layers" in kinds or (adapted.own_head and states):
        asked["output_hidden_states"] = True
    with around, _trimmed(model, adapted, read), recorded(decoder(model), kinds) as means:
        if adapted.own_head:
            output = type(model).forward(model, **inputs, **asked)
            rows = output.logits
            hidden = output.hidden_states[-1] if states else rows
        else:
            output = body(model)(**inputs, **asked)
            rows = hidden = output.last_hidden_state

    def of(kind: Kind, places: Tensor) -> Tensor:
        if kind == "last":
            return _at(hidden, places)
        if kind == "layers":
            return torch.stack([_at(layer, places) for layer in output.hidden_states[1:]], -2)
        return torch.stack([mean.flatten()[places] for mean in means[kind]], -1)

    return [_at(rows, readout), *(of(read.kind, at) for read, at in zip(states, places, strict=True))]


def _flex_multiple(length: int) -> int:
    """At most eight lengths an octave, since each may compile anew; padding costs an eighth at most."""
    return max(FLEX_BLOCK, 2 ** (length.bit_length() - 4))


def _at(rows: Tensor, places: Tensor) -> Tensor:
    return rows.flatten(0, -2).index_select(0, places)


def _trimmed(model: PreTrainedModel, adapted: Adapted, places: Tensor) -> AbstractContextManager[Any]:
    """A layer that backward recomputes must do what it did in forward, so checkpointed models run whole."""
    if not adapted.trims or any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        return nullcontext()
    feed_forward = last_feed_forward(decoder(model))
    return nullcontext() if feed_forward is None else only_at(feed_forward, places)


def body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; the model itself where a class has no such part."""
    found = model.base_model
    return found if found is not model else model.get_decoder()


def decoder(model: PreTrainedModel) -> nn.Module:
    """The body's part that reads text: all of it, unless the model sees or hears too."""
    return body(model) if model.config.get_text_config() is model.config else model.get_decoder()
