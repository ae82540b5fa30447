"""Inside the model's forward: the body over a forest, the head where it is read, states of the layers.

Scoring happens within one call of the (possibly wrapped) model, because data parallelism, sharding and PEFT
act around that call: :func:`install` makes the forward of the transformers model take a keyword ``scoring``,
which is called with the model and the way to score it. The folder's README says what to beware of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from types import MethodType
from typing import Any, Literal, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.packing import CellIndex, Forest
from prefero.errors import PreferoError
from prefero.models.causal.attention import PathRows, attending
from prefero.models.causal.experts import balancing_loss
from prefero.models.causal.images import image_inputs
from prefero.models.causal.rope import LengthRope, only
from prefero.models.head import BiasedHead, LogitRule, read_head, wide
from prefero.models.kind import Packing
from prefero.models.signals import ROUTER_LOSS, Meter
from prefero.objectives.batch import Signal

FLEX_BLOCK = 128
"""Lengths for FlexAttention are multiples of its block."""

ATTRIBUTE = "_prefero_adapted"
"""The attribute of a patched model that says how it is scored, an :class:`Adapted`."""

_REPLACED = "_prefero_replaced_forward"
"""The attribute of a model with the forward that the instance had, or None for that of its class."""


@dataclass(slots=True)
class Adapted:
    """The way in which a model is scored.

    ``own_head``: its logits come from its own forward, because its head is not what its configuration says.
    ``trims``: the last feed-forward runs only where it is read. ``blocks``: all tokens of an image see each
    other. ``sees``: all this was checked with images too.
    """

    packing: Packing
    own_head: bool = False
    trims: bool = False
    blocks: bool = False
    sees: bool = False


def install(inner: PreTrainedModel, adapted: Adapted) -> None:
    """Make the forward of this instance take a ``scoring`` keyword; else, and twice, it stays as it is."""
    patched = ATTRIBUTE in vars(inner)
    vars(inner)[ATTRIBUTE] = adapted
    if patched:
        return
    own = inspect.signature(inner.forward)
    vars(inner)[_REPLACED] = vars(inner).get("forward")

    def forward(self: PreTrainedModel, *args: Any, scoring: Any = None, **kwargs: Any) -> Any:
        if scoring is not None:
            return scoring(self, vars(self)[ATTRIBUTE])
        replaced = vars(self)[_REPLACED]
        return type(self).forward(self, *args, **kwargs) if replaced is None else replaced(*args, **kwargs)

    parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = own.replace(parameters=[parameter, *own.parameters.values()])  # type: ignore[attr-defined]
    inner.forward = MethodType(forward, inner)


# What is asked of a forward


class Packed(Protocol):
    """Packed tokens: which are scored, the readout row of each, and which cells of which view they are of."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self: ...

    @property
    def cells(self) -> Mapping[str, CellIndex]: ...

    @property
    def target(self) -> Int[Tensor, "scored"]: ...

    @property
    def slot(self) -> Int[Tensor, "scored"]: ...

    @property
    def parent(self) -> Int[Tensor, "scored"]: ...


Run = Callable[[PreTrainedModel, Adapted, Any, Sequence["StateRead"]], list[Tensor]]
"""A forward of the body over packed tokens: the rows that the head reads, and then what each state reads."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoringPass:
    """Log-probabilities of the scored tokens, what ``states`` read, and signals of the readout rows."""

    run: Run
    inputs: Packed
    signals: tuple[Signal, ...] = ()
    states: tuple[StateRead, ...] = ()
    others: Mapping[str, OtherRows] = field(default_factory=dict)

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> tuple[Tensor, ...]:
        rows, *states = self.run(model, adapted, self.inputs, self.states)
        others = {name: other.logits(model, adapted) for name, other in self.others.items()}
        head, rule = output_head(model, adapted)
        meter = Meter(self.signals, others)
        logps, signals = read_head(head, rule, rows, self.inputs.slot, self.inputs.target, meter)
        return logps, *states, *signals


def readout(run: Run, inputs: Packed, model: PreTrainedModel, adapted: Adapted) -> Tensor:
    """The rows that the head reads: the part of a second model that costs a forward of the body."""
    return run(model, adapted, inputs, ())[0]


def head_logits(
    rows: Float[Tensor, "readout hidden"], model: PreTrainedModel, adapted: Adapted
) -> Float[Tensor, "readout vocabulary"]:
    """The logits of rows that :func:`readout` gave."""
    head, rule = output_head(model, adapted)
    return wide(rule(head(rows)))


@dataclass(frozen=True, slots=True, eq=False)
class OtherRows:
    """A second model's readout rows, whose logits are asked for chunk by chunk, under its ``context``. Where
    it is the first model under another context (adapters off), its head is called from within, because a
    wrapped module must not call itself."""

    model: nn.Module
    inner: PreTrainedModel
    context: Callable[[], AbstractContextManager[Any]]
    ids: Int[Tensor, "1 node"]
    rows: Float[Tensor, "readout hidden"]

    def logits(self, caller: PreTrainedModel, adapted: Adapted) -> Callable[[int, int], Tensor]:
        def chunk(start: int, stop: int) -> Tensor:
            rows = self.rows[start:stop]
            with torch.no_grad(), self.context():
                if self.inner is caller:
                    return head_logits(rows, caller, adapted)
                return self.model(input_ids=self.ids, scoring=partial(head_logits, rows))

        return chunk


def run_forest(
    model: PreTrainedModel, adapted: Adapted, forest: Forest, states: Sequence[StateRead] = ()
) -> list[Float[Tensor, "node *trailing"]]:
    """Rows for the head (hidden states, or logits with ``own_head``), and what each of ``states`` reads."""
    rope = LengthRope.of(model)
    if rope is not None:
        rope.reset()
    if rope is None or not rope.splits(forest):
        return _run(model, adapted, forest, states)
    adapted = replace(adapted, packing="padded")
    nodes = [forest.readout, *(state.nodes.flatten() for state in states)]
    results: list[list[Tensor]] = [[] for _ in nodes]
    order: list[list[Tensor]] = [[] for _ in nodes]
    for trees in rope.classes([stop - start for start, stop in forest.trees]):
        rope.reset()
        part, chosen, inside = only(forest, trees, nodes)
        of_part = [replace(state, nodes=some) for state, some in zip(states, inside[1:], strict=True)]
        values = _run(model, adapted, replace(part, readout=inside[0]), of_part)
        for number, value in enumerate(values):
            results[number].append(value)
            order[number].append(chosen[number])
    return [
        torch.cat(values)[torch.cat(places).argsort()] for values, places in zip(results, order, strict=True)
    ]


def _run(
    model: PreTrainedModel, adapted: Adapted, forest: Forest, states: Sequence[StateRead]
) -> list[Float[Tensor, "node *trailing"]]:
    """One forward of the body, and what is read of it."""
    inputs: dict[str, Any]
    around: AbstractContextManager[Any]
    paths: PathRows | None = None
    tokens = torch.arange(len(forest), device=forest.ids.device)
    if adapted.packing == "padded":
        paths = PathRows.of(forest)
        inputs, around = {"input_ids": paths.ids}, nullcontext()
        readout = paths.places(forest, forest.readout)
        places = [paths.places(forest, state.nodes.flatten()) for state in states]
        tokens = paths.places(forest, tokens)
    else:
        readout, places = forest.readout, [state.nodes.flatten() for state in states]
        if adapted.packing == "flex":
            # At most eight lengths per octave, since each may compile again; padding costs at most an eighth.
            forest = forest.padded_to(max(FLEX_BLOCK, 2 ** (len(forest).bit_length() - 4)))
        ids = forest.ids[None]
        inputs = {
            "input_ids": ids,
            "position_ids": forest.depth[None],
            "attention_mask": torch.ones_like(ids),
        }
        around = attending(forest, adapted.packing, blocks=adapted.blocks)
    if forest.images is not None:
        inputs |= image_inputs(model, body(model), forest, paths)

    read = torch.cat((readout, *places)).unique() if states else readout
    wanted = {state.part for state in states}
    asked: dict[str, Any] = {"use_cache": False, "return_dict": True}
    if "layers" in wanted or (adapted.own_head and states):
        asked["output_hidden_states"] = True
    if "router" in wanted:
        asked["output_router_logits"] = True
        adapted = replace(adapted, trims=False)  # the last router sees all tokens
    with around, trimmed(model, adapted, read), recorded(decoder(model), wanted) as means:
        if adapted.own_head:
            output = type(model).forward(model, **inputs, **asked)
            rows, hidden = output.logits, output.hidden_states[-1] if states else output.logits
        else:
            output = body(model)(**inputs, **asked)
            rows = hidden = output.last_hidden_state

    results = [rows.flatten(0, -2).index_select(0, readout)]
    for state, at in zip(states, places, strict=True):
        if state.part == "last":
            results.append(hidden.flatten(0, -2).index_select(0, at))
        elif state.part == "layers":
            layers = [layer.flatten(0, -2).index_select(0, at) for layer in output.hidden_states[1:]]
            results.append(torch.stack(layers, -2))
        elif state.part == "router":
            loss = balancing_loss(model, output.router_logits, inputs["input_ids"].numel(), tokens)
            results.append(loss.expand(len(at)))
        else:
            results.append(torch.stack([mean.flatten()[at] for mean in means[state.part]], -1))
    return results


# The parts of a model


def body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; the model itself where a class has no such part."""
    return model.get_decoder() if model.base_model is model else model.base_model


def decoder(model: PreTrainedModel) -> nn.Module:
    """The body's part that reads text: all of it, unless the model sees or hears too."""
    return body(model) if model.config.get_text_config() is model.config else model.get_decoder()


def output_head(model: PreTrainedModel, adapted: Adapted) -> tuple[nn.Module, LogitRule]:
    """The module that makes logits of the rows that a run gives, and the rule that follows it."""
    if adapted.own_head:
        return nn.Identity(), LogitRule()
    head = model.get_output_embeddings()
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None and bias.any():
        head = BiasedHead(head, bias)
    return head, LogitRule.of(model.config.get_text_config())


def last_feed_forward(body: nn.Module) -> nn.Module | None:
    """The position-wise part of the last layer, where it has the usual name; wrapped layers show none."""
    layers = getattr(body, "layers", getattr(body, "h", None))
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    mlp = dict(layers[-1].named_children()).get("mlp")
    return mlp if mlp is not None and "forward" not in vars(mlp) else None


@contextmanager
def trimmed(model: PreTrainedModel, adapted: Adapted, places: Int[Tensor, "place"]) -> Iterator[None]:
    """Make the last feed-forward work at distinct ``places`` of its flattened input and give 0 elsewhere, if
    the model is scored that way. A layer that backward recomputes must do what it did in forward, so
    checkpointed models run whole."""
    feed_forward = last_feed_forward(decoder(model)) if adapted.trims else None
    if feed_forward is None or any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        yield
        return
    whole = feed_forward.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        read = whole(hidden.flatten(0, -2)[None].index_select(1, places), *args, **kwargs)
        if not isinstance(read, Tensor):
            raise TypeError("the last feed-forward gives more than its output")
        filled = read.new_zeros(hidden.shape[:-1].numel(), read.shape[-1])
        return filled.index_copy(0, places, read[0]).unflatten(0, hidden.shape[:-1])

    feed_forward.forward = forward
    try:
        yield
    finally:
        del feed_forward.forward


# States: what layers hold at some nodes

StatePart = Literal["last", "layers", "mlp", "attention", "residual", "router"]

UNRECORDED: Collection[StatePart] = ("last", "layers", "router")
"""Parts that are outputs of the forward itself."""

_NAMES = {"mlp": ("mlp", "feed_forward", "ffn", "fc2"), "attention": ("attn", "attention")}
"""Names that families have for the parts of a layer; a child's name contains one of these."""


@dataclass(frozen=True, slots=True, eq=False)
class StateRead:
    """A read at some nodes: the ``last`` hidden state, the states after all ``layers``, the mean activation
    of a part of every layer, or the balancing loss of the ``router``, which is the same at all nodes. Where
    ``there`` is False, no token is scored."""

    part: StatePart
    nodes: Int[Tensor, "*where"]
    there: Tensor | None = None

    @classmethod
    def of(cls, signal: Signal, inputs: Packed, cells: CellIndex) -> StateRead:
        """The read of a state signal for the cells of one view."""
        if signal.name == "state":
            return cls("last", cells.last)
        if signal.name == "prompt_state":
            return cls("last", cells.prompt_last)
        if signal == ROUTER_LOSS:
            return cls("router", cells.last[:, 0])
        named: dict[str, StatePart] = {"token_state": "last", "token_states": "layers"}
        part: Any = named.get(signal.name) or dict(signal.options)["part"]
        return cls(part, inputs.parent[cells.index.clamp(min=0)], cells.index >= 0)

    def shaped(self, values: Float[Tensor, "node *trailing"]) -> Float[Tensor, "*where *trailing"]:
        """The values of the nodes in their places; 0 where no token is scored."""
        values = values.unflatten(0, self.nodes.shape)
        if self.there is None:
            return values
        return values.masked_fill(~self.there[(...,) + (None,) * (values.dim() - self.there.dim())], 0.0)


@contextmanager
def recorded(body: nn.Module, wanted: Collection[StatePart]) -> Iterator[dict[StatePart, list[Tensor]]]:
    """Record the mean activations of the wanted parts in a forward of the body, by layer and place."""
    means: dict[StatePart, list[Tensor]] = {part: [] for part in wanted if part not in UNRECORDED}
    with ExitStack() as hooks:
        for part, of_layers in means.items():
            for module in _modules(body, part):
                hook = module.register_forward_hook(partial(_record, of_layers))
                hooks.callback(hook.remove)
        yield means


def _record(means: list[Tensor], module: nn.Module, inputs: Any, output: Any) -> None:
    output = output if isinstance(output, Tensor) else output[0]
    means.append(wide(output.detach()).mean(-1))


def _modules(body: nn.Module, part: StatePart) -> list[nn.Module]:
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
    if part == "residual":
        return list(layers)
    modules = []
    for layer in layers:
        children = dict(layer.named_children())
        named = [name for name in children if any(known in name for known in _NAMES[part])]
        named = [name for name in named if "norm" not in name and "ln" not in name]
        if not named:
            raise PreferoError(
                f"a {type(layer).__name__} of {type(body).__name__} has no part that is called "
                f"{' or '.join(_NAMES[part])}; it has {', '.join(children)}"
            )
        modules.append(children[named[0]])
    return modules
