"""Causal language models as scorers: log-probabilities and signals of a packed forest.

:func:`adapt` replaces the forward of the innermost model, on that instance, with one that takes a
``scoring`` keyword and otherwise is the old one. Everything a scoring pass does happens inside this one call
of the wrapped model, so that data-parallel and sharded wrappers, adapters and mixed precision hold for it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import MethodType
from typing import Any, Literal

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.images import ImageBatch
from prefero.data.packing import CellIndex, Forest
from prefero.errors import PreferoError
from prefero.models.forest_attention import register
from prefero.models.forwards import Adapted, Layout, OtherRows, ReadoutRows, ScoreForest
from prefero.models.second import SecondModel
from prefero.models.selfcheck import choose
from prefero.models.signals import STATES, check_signals
from prefero.models.states import StateRead
from prefero.objectives.batch import Signal, TokenLogps

ATTRIBUTE = "_prefero_adapted"
REPLACED = "_prefero_replaced_forward"


def adapt(
    model: nn.Module,
    *,
    layout: Layout | Literal["auto"] = "auto",
    keep_dropout: bool = False,
    images: ImageBatch | None = None,
) -> Layout:
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
            "rows: score it with prefero.models.seq2seq"
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


def innermost(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside adapters and wrappers."""
    while not isinstance(model, PreTrainedModel):
        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise PreferoError(
                    f"{model.active_peft_config.peft_type.value} adapters put virtual tokens before the "
                    f"prompt, which a shared prompt has no place for: use LoRA or another weight adapter"
                )
            model = model.get_base_model()
        elif isinstance(inside := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
            model = inside
        else:
            raise PreferoError(f"{type(model).__name__} is not a transformers model, nor a wrapper of one")
    if model.get_output_embeddings() is None:
        raise PreferoError(
            f"{type(model).__name__} has no language-model head: load it with AutoModelForCausalLM"
        )
    return model


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


def zero_dropout(model: nn.Module) -> None:
    """No dropout from here on, in modules and where a forward reads its rate."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _other_rows(second: SecondModel, forest: Forest) -> OtherRows:
    adapt(second.model, images=forest.images)
    ids = forest.ids[None]
    with torch.no_grad(), second.context():
        rows = second.model(input_ids=ids, scoring=ReadoutRows(forest))
    return OtherRows(second.model, innermost(second.model), second.context, ids, rows)
