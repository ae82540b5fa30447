"""What runs inside a model's forward when a forest is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.packing import Forest
from prefero.models.forest_attention import attending
from prefero.models.head import LogitRule, read_head, wide
from prefero.models.last_layer import last_feed_forward, only_at
from prefero.models.padded import PaddedRows
from prefero.models.signals import Meter
from prefero.objectives.batch import Signal

Layout = Literal["trees", "dense", "flex", "padded"]

FLEX_BLOCK = 128
"""Rows for FlexAttention are multiples of its block."""


@dataclass(slots=True)
class Adapted:
    """How a model is scored.

    ``own_head``: its logits come from its own forward, because its head is not what its configuration says.
    ``trims``: the last feed-forward runs only where it is read.
    """

    layout: Layout
    own_head: bool = False
    trims: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ScoreForest:
    """Log-probabilities of the scored nodes, signals of the readout rows, hidden states of ``states``."""

    forest: Forest
    signals: tuple[Signal, ...]
    states: Int[Tensor, "state"]
    others: Mapping[str, OtherRows]

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> tuple[Tensor, ...]:
        forest = self.forest
        rows, states = _run(model, adapted, forest, self.states)
        meter = Meter(
            self.signals, {name: other.logits(model, adapted) for name, other in self.others.items()}
        )
        logps, signals = read_head(*_head(model, adapted), rows, forest.slot, forest.target, meter)
        return logps, states, *signals


@dataclass(frozen=True, slots=True, eq=False)
class ReadoutRows:
    """What the head reads at the readout nodes: the part of a second model that costs a body forward."""

    forest: Forest

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> Tensor:
        return _run(model, adapted, self.forest, self.forest.readout[:0])[0]


@dataclass(frozen=True, slots=True, eq=False)
class HeadLogits:
    """Only the head, on rows from :class:`ReadoutRows`."""

    rows: Float[Tensor, "readout hidden"]

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> Tensor:
        head, rule = _head(model, adapted)
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


def _head(model: PreTrainedModel, adapted: Adapted) -> tuple[nn.Module, LogitRule]:
    if adapted.own_head:
        return nn.Identity(), LogitRule()
    return model.get_output_embeddings(), LogitRule.of(model.config.get_text_config())


def _run(
    model: PreTrainedModel, adapted: Adapted, forest: Forest, states: Tensor
) -> tuple[Float[Tensor, "readout hidden"], Float[Tensor, "state hidden"]]:
    """Rows for the head (hidden states, or logits with ``own_head``) and the hidden states of other nodes."""
    inputs: dict[str, Tensor]
    around: AbstractContextManager[Any]
    if adapted.layout == "padded":
        padded = PaddedRows.of(forest)
        inputs = {"input_ids": padded.ids}
        around = nullcontext()
        readout, states = padded.places(forest, forest.readout), padded.places(forest, states)
    else:
        readout = forest.readout
        if adapted.layout == "flex":
            forest = forest.padded_to(_flex_multiple(len(forest)))
        ids = forest.ids[None]
        inputs = {
            "input_ids": ids,
            "position_ids": forest.depth[None],
            "attention_mask": torch.ones_like(ids),
        }
        around = attending(forest, adapted.layout)

    read = torch.cat((readout, states)).unique() if len(states) else readout
    with around, _trimmed(model, adapted, read):
        if adapted.own_head:
            output = type(model).forward(
                model, **inputs, use_cache=False, return_dict=True, output_hidden_states=len(states) > 0
            )
            rows = output.logits
            hidden = output.hidden_states[-1] if len(states) else rows
        else:
            hidden = body(model)(**inputs, use_cache=False, return_dict=True).last_hidden_state
            rows = hidden
    return _at(rows, readout), _at(hidden, states)


def _flex_multiple(length: int) -> int:
    """At most eight lengths an octave, since each may compile anew; padding costs an eighth at most."""
    return max(FLEX_BLOCK, 2 ** (length.bit_length() - 4))


def _at(rows: Tensor, places: Tensor) -> Tensor:
    return rows.flatten(0, -2).index_select(0, places)


def _trimmed(model: PreTrainedModel, adapted: Adapted, places: Tensor) -> AbstractContextManager[Any]:
    """A layer that backward recomputes must do what it did in forward, so checkpointed models run whole."""
    if not adapted.trims or any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        return nullcontext()
    feed_forward = last_feed_forward(body(model))
    return nullcontext() if feed_forward is None else only_at(feed_forward, places)


def body(model: PreTrainedModel) -> nn.Module:
    """The model without its head; the model itself where a class has no such part."""
    found = model.base_model
    return found if found is not model else model.get_decoder()
