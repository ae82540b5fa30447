"""Causal language models: prompts and responses as token tries, packed into forests."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import MethodType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.images import ImageBatch
from prefero.data.packing import CellIndex, Forest, pack, unique_tokens
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.attention import register
from prefero.models.causal.forward import Adapted, OtherRows, Packing, ReadoutRows, ScoreForest, StateRead
from prefero.models.kind import Layout, PackedRows, PaddedRows, Rows
from prefero.models.loading import innermost, zero_dropout
from prefero.models.selfcheck import choose
from prefero.models.signals import STATES, SecondModel, check_signals
from prefero.models.text import TextKind, has_experts
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes, model_names, signals_of


class Language(TextKind):
    """Any causal language model of transformers; a row is a forest, and costs its unique tokens."""

    name = "language"
    task_type = "CAUSAL_LM"
    monitors = frozenset({"entropy", "top_k_mass"})
    loader, what = "AutoModelForCausalLM", "causal language model"

    def rows(self, data: TokenDataset, layout: str) -> Rows:
        if layout != "padded":
            return PackedRows([unique_tokens(example) for example in data])
        cells = [example.all_cells for example in data]
        return PaddedRows(
            [len(some) for some in cells],
            [max(len(cell.context) + len(cell.response) for cell in some) for some in cells],
        )

    def budget(self, layout: str, device: torch.device) -> int:
        """A dense mask grows with the square of the row; a GPU wants longer rows than a CPU."""
        if layout == "dense":
            return 1024
        return 4096 if device.type == "cpu" else 16384

    def collate(self, items: Sequence[TokenExample], seeds: Sequence[int]) -> Forest:
        return pack(items)

    def adapt(self, model: nn.Module, layout: Layout = "auto", *, keep_dropout: bool = False) -> str:
        return adapt(model, layout=layout, keep_dropout=keep_dropout)

    def score(
        self,
        model: nn.Module,
        inputs: Forest,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        return score(model, inputs, signals, others=others)

    def check(self, needs: Needs) -> None:
        check_signals(sorted(signals_of(needs), key=repr), dict.fromkeys(model_names(needs)))

    def masks(self, inputs: Forest) -> dict[str, Tensor]:
        return {view: cells.index >= 0 for view, cells in inputs.cells.items()}

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        return state_sizes(model)

    def leaves_out(self, model: nn.Module) -> bool:
        """Only parts that no text reaches (a vision tower) and experts can be left out of a step."""
        return self.config.get_text_config() is not self.config or has_experts(self.config)


ATTRIBUTE = "_prefero_adapted"
REPLACED = "_prefero_replaced_forward"


def adapt(
    model: nn.Module,
    *,
    layout: Packing | Literal["auto"] = "auto",
    keep_dropout: bool = False,
    images: ImageBatch | None = None,
) -> Packing:
    """Make a causal language model score forests, and return the layout it will use.

    Call it after adapters are added and before the model is wrapped for distribution or mixed precision.
    Each layout is checked on the model itself against separate right-padded rows; ``"auto"`` takes the
    fastest that agrees, and warns when only padded rows do. A second call changes nothing unless it names
    another layout, or gives ``images``, with which a model that sees is checked too.

    Dropout is set to 0 unless ``keep_dropout``: log-probabilities are compared across models and passes.

    Raises:
        PreferoError: for a named layout that gives wrong numbers for this model, for prompt tuning (virtual
            tokens have no place in a tree), and for what is not a causal language model.
    """
    inner = innermost(model)
    if inner.config.is_encoder_decoder:
        raise PreferoError(
            f"{type(inner).__name__} is an encoder–decoder, whose prompts and responses stand in different "
            "rows: score it with prefero.models.encoder_decoder.scoring"
        )
    present: Adapted | None = vars(inner).get(ATTRIBUTE)
    checked = present is not None and (present.sees or images is None)
    if present is not None and checked and layout in ("auto", present.layout):
        return present.layout
    register()
    if not keep_dropout:
        zero_dropout(model)
    adapted, reason = choose(inner, layout, images)
    if present is None:
        install(inner)
    vars(inner)[ATTRIBUTE] = adapted
    if reason and layout == "auto":
        warnings.warn(
            f"{type(inner).__name__} is scored in padded rows, one response a row, without sharing "
            f"prompts: {reason}",
            stacklevel=2,
        )
    return adapted.layout


def score(
    model: nn.Module,
    forest: Forest,
    signals: frozenset[Signal] = frozenset(),
    *,
    others: Mapping[str, nn.Module | SecondModel] | None = None,
) -> dict[str, TokenLogps]:
    """Score every view of a forest in one call of the (possibly wrapped) model.

    Gradients follow the caller's grad mode; second models never have one. Log-probabilities are float32 (or
    float64 for such weights), 0 where nothing is scored. Token signals are ``[example, response, token]``,
    states have axes of their own behind the places that they belong to; see :mod:`prefero.models.signals`.
    """
    adapt(model, images=forest.images)
    seconds = {
        name: other if isinstance(other, SecondModel) else SecondModel(other)
        for name, other in (others or {}).items()
    }
    check_signals(tuple(signals), seconds)
    ordered = sorted(signals, key=repr)
    tokens = tuple(signal for signal in ordered if signal.name not in STATES)
    states = [signal for signal in ordered if signal.name in STATES]
    reads = [StateRead.of(signal, forest, cells) for cells in forest.cells.values() for signal in states]
    scoring = ScoreForest(
        forest,
        tokens,
        tuple(reads),
        {
            name: _other_rows(seconds[name], forest)
            for name in sorted({str(s.against) for s in tokens if s.against})
        },
    )
    logps, *given = model(input_ids=forest.ids[None], scoring=scoring)
    inside, measured = given[: len(reads)], given[len(reads) :]
    of_tokens = {signal: values[forest.slot] for signal, values in zip(tokens, measured, strict=True)}
    shaped = [read.shaped(values) for read, values in zip(reads, inside, strict=True)]
    return by_view(forest.cells, logps, of_tokens, states, shaped)


def by_view(
    views: Mapping[str, CellIndex],
    logps: Float[Tensor, " scored"],
    of_tokens: Mapping[Signal, Float[Tensor, " scored"]],
    states: Sequence[Signal],
    shaped: Iterable[Tensor],
) -> dict[str, TokenLogps]:
    """What was measured at scored places, arranged by view; ``shaped`` are the states of every view in
    turn."""
    following = iter(shaped)
    result = {}
    for view, cells in views.items():
        found = {signal: cells.gather(values) for signal, values in of_tokens.items()}
        found |= {signal: next(following) for signal in states}
        result[view] = TokenLogps(cells.gather(logps), cells.index >= 0, found)
    return result


def state_sizes(model: nn.Module | SecondModel) -> dict[str, int]:
    """How long the axes are that a model's states have behind their places."""
    config = innermost(model.model if isinstance(model, SecondModel) else model).config.get_text_config()
    return {"hidden": config.hidden_size, "layer": config.num_hidden_layers}


def install(inner: PreTrainedModel) -> None:
    """Make the forward of this instance take a ``scoring`` keyword, and otherwise be the old one."""
    own = inspect.signature(inner.forward)
    vars(inner)[REPLACED] = vars(inner).get("forward")

    def forward(self: PreTrainedModel, *args: Any, scoring: Any = None, **kwargs: Any) -> Any:
        if scoring is not None:
            return scoring(self, vars(self)[ATTRIBUTE])
        replaced = vars(self)[REPLACED]
        return type(self).forward(self, *args, **kwargs) if replaced is None else replaced(*args, **kwargs)

    parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = own.replace(parameters=[parameter, *own.parameters.values()])  # type: ignore[attr-defined]
    inner.forward = MethodType(forward, inner)


def _other_rows(second: SecondModel, forest: Forest) -> OtherRows:
    adapt(second.model, images=forest.images)
    ids = forest.ids[None]
    with torch.no_grad(), second.context():
        rows = second.model(input_ids=ids, scoring=ReadoutRows(forest))
    return OtherRows(second.model, innermost(second.model), second.context, ids, rows)
