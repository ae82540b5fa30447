"""Causal language models: prompts and responses as token tries, packed into forests, scored in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prefero.data.packing import Forest, ImageBatch, pack
from prefero.data.trie import TokenExample, unique_tokens
from prefero.errors import PreferoError
from prefero.models.causal.attention import register
from prefero.models.causal.forward import (
    ATTRIBUTE,
    Adapted,
    OtherRows,
    Packed,
    Run,
    ScoringPass,
    StateRead,
    install,
    readout,
    run_forest,
)
from prefero.models.causal.rope import LengthRope, apart
from prefero.models.causal.selfcheck import choose
from prefero.models.kind import Batching, Dataset, PackedBatching, Packing, PackingChoice, PaddedBatching
from prefero.models.loading import innermost, zero_dropout
from prefero.models.signals import STATES, SecondModel, check_signals
from prefero.models.text import EXPERTS, TextKind
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes, model_names, signals_of

AnyPacked = TypeVar("AnyPacked", bound=Packed)


class PackedKind(TextKind[AnyPacked]):
    """Language models whose inputs are ``Packed``, scored in one call by :func:`scored_views`."""

    monitors = frozenset({"entropy", "top_k_mass"})

    def check(self, needs: Needs) -> None:
        super().check(needs)
        check_signals(sorted(signals_of(needs), key=repr), dict.fromkeys(model_names(needs)))

    def masks(self, inputs: AnyPacked) -> dict[str, Tensor]:
        return {view: cells.index >= 0 for view, cells in inputs.cells.items()}

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        config = innermost(model.model if isinstance(model, SecondModel) else model).config.get_text_config()
        return {"hidden": config.hidden_size, "layer": config.num_hidden_layers}

    def scored_apart(self, model: nn.Module) -> str:
        rope = LengthRope.of(innermost(model))
        return "" if rope is None else f"{rope.name}: classes of lengths from {rope.short}"

    def leaves_out(self, model: nn.Module) -> bool:
        """Experts can be left out of a step."""
        text = self.config.get_text_config()
        return any(getattr(text, name, None) for name in EXPERTS)


class Language(PackedKind[Forest]):
    """Any causal language model of transformers; a micro-batch is a forest, and costs its unique tokens.

    What needs no tokenizer needs no instance, so a model can be scored with the class alone::

        Language.adapt(model)
        logps = Language.score(model, Language.collate(examples))[""].logps
    """

    name = "language"
    task_type = "CAUSAL_LM"
    loader, what = "AutoModelForCausalLM", "causal language model"
    balances = True

    def batching(self, data: Dataset[TokenExample], packing: str) -> Batching:
        if packing != "padded":
            return PackedBatching([unique_tokens(example.all_cells) for example in data])
        cells = [example.all_cells for example in data]
        return PaddedBatching(
            [len(some) for some in cells],
            [max(len(cell.context) + len(cell.response) for cell in some) for some in cells],
        )

    def budget(self, packing: str, device: torch.device) -> int:
        """A dense mask grows with the square of the forest; a GPU wants larger ones than a CPU."""
        return 1024 if packing == "dense" else super().budget(packing, device)

    @staticmethod
    def collate(items: Sequence[TokenExample], seeds: Sequence[int] = ()) -> Forest:
        return pack(items)

    @staticmethod
    def adapt(
        model: nn.Module,
        packing: PackingChoice = "auto",
        *,
        keep_dropout: bool = False,
        images: ImageBatch | None = None,
    ) -> Packing:
        """Make a causal language model score forests, and return the packing it will use.

        Call it after adapters are added and before the model is wrapped for distribution or mixed precision.
        Each packing is checked on the model itself against separate right-padded rows; ``"auto"`` takes the
        fastest that agrees, and warns when only padded rows do. A second call changes nothing unless it names
        another packing, or gives ``images``, with which a model that sees is checked too. Dropout is set to 0
        unless ``keep_dropout``: log-probabilities are compared across models and passes.

        Raises :class:`PreferoError` for a named packing that gives wrong numbers for this model, for prompt
        tuning (virtual tokens have no place in a tree), and for what is not a causal language model.
        """
        inner = innermost(model)
        if inner.config.is_encoder_decoder:
            raise PreferoError(
                f"{type(inner).__name__} is an encoder–decoder, whose prompts and responses stand in "
                "different rows: score it with prefero.models.encoder_decoder.kind.EncoderDecoder"
            )
        present: Adapted | None = vars(inner).get(ATTRIBUTE)
        checked = present is not None and (present.sees or images is None)
        if present is not None and checked and packing in ("auto", present.packing):
            return present.packing
        register()
        if not keep_dropout:
            zero_dropout(model)
        adapted, reason = choose(inner, packing, images)
        install(inner, adapted)
        if reason and packing == "auto":
            warnings.warn(
                f"{type(inner).__name__} is scored in padded rows, one response per row, without sharing "
                f"prompts: {reason}",
                stacklevel=2,
            )
        return adapted.packing

    @staticmethod
    def score(
        model: nn.Module,
        inputs: Forest,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        """Score every view of a forest in one call of the (possibly wrapped) model.

        Gradients follow the caller's grad mode; second models never have one. Log-probabilities are float32
        (or float64 for such weights), 0 where nothing is scored. Token signals are ``[example, response,
        token]``, states have axes of their own behind the places that they belong to; see
        :mod:`prefero.models.signals`. Raises :class:`PreferoError` for unknown signals, and those that lack
        their second model.
        """
        adapt = partial(Language.adapt, images=inputs.images)
        seconds = (others or {}).values()
        models = (other.model if isinstance(other, SecondModel) else other for other in seconds)
        inputs = apart(inputs, map(innermost, (model, *models)))
        return scored_views(model, inputs, inputs.ids[None], run_forest, adapt, signals, others or {})

    def leaves_out(self, model: nn.Module) -> bool:
        """As experts can, so can parts that no text reaches (a vision tower)."""
        return self.config.get_text_config() is not self.config or super().leaves_out(model)


def scored_views(
    model: nn.Module,
    inputs: Packed,
    ids: Tensor,
    run: Run,
    adapt: Callable[[nn.Module], object],
    signals: frozenset[Signal],
    others: Mapping[str, nn.Module | SecondModel],
) -> dict[str, TokenLogps]:
    """Score every view of packed tokens in one call of the model, with ``ids``; ``run`` is what happens
    inside instead, for a model that ``adapt`` has prepared. The second models that ``signals`` compare with
    run first, without a gradient."""
    adapt(model)
    seconds = {
        name: other if isinstance(other, SecondModel) else SecondModel(other)
        for name, other in others.items()
    }
    check_signals(tuple(signals), seconds)
    ordered = sorted(signals, key=repr)
    tokens = tuple(signal for signal in ordered if signal.name not in STATES)
    states = [signal for signal in ordered if signal.name in STATES]
    reads = tuple(StateRead.of(signal, inputs, cells) for cells in inputs.cells.values() for signal in states)
    compared = {}
    for name in sorted({str(signal.against) for signal in tokens if signal.against}):
        second = seconds[name]
        adapt(second.model)
        with torch.no_grad(), second.context():
            rows = second.model(input_ids=ids, scoring=partial(readout, run, inputs))
        compared[name] = OtherRows(second.model, innermost(second.model), second.context, ids, rows)

    scoring = ScoringPass(run, inputs, tokens, reads, compared)
    logps, *measured = model(input_ids=ids, scoring=scoring)
    state_values = (read.shaped(values) for read, values in zip(reads, measured, strict=False))
    token_values = [values[inputs.slot] for values in measured[len(reads) :]]
    result = {}
    for view, cells in inputs.cells.items():
        of_view: dict[Signal, Any] = {
            signal: cells.gather(values) for signal, values in zip(tokens, token_values, strict=True)
        }
        of_view |= {signal: next(state_values) for signal in states}
        result[view] = TokenLogps(cells.gather(logps), cells.index >= 0, of_view)
    return result
