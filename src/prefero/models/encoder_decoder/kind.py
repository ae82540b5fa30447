"""Encoder–decoders: every prompt is encoded once, every response decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prefero.data.encode import Encoder
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.forward import ATTRIBUTE, install
from prefero.models.causal.scoring import PackedKind, scored_views
from prefero.models.encoder_decoder.scoring import READABLE, EncoderDecoderRows, arrange, checked, decode
from prefero.models.kind import Batching, Dataset, PackingChoice, PaddedBatching, Reading
from prefero.models.loading import innermost, zero_dropout
from prefero.models.signals import STATES, SecondModel
from prefero.models.text import length_limit
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, signals_of

Ids = NDArray[np.int64]


class EncoderDecoder(PackedKind[EncoderDecoderRows]):
    """T5, BART and their like. What their tokenizers put around a text stands around prompts and responses:
    the encoder reads the end token behind a prompt, and a start token (BART) is read, but not scored.

    A micro-batch costs its prompts and responses, all as long as the longest of them. As for
    :class:`~prefero.models.causal.scoring.Language`, a model can be scored with the class alone.
    """

    name = "encoder_decoder"
    task_type = "SEQ_2_SEQ_LM"
    loader, what = "AutoModelForSeq2SeqLM", "encoder–decoder language model"
    reads_apart = True

    @cached_property
    def around(self) -> tuple[Ids, Ids]:
        """The tokens that the tokenizer puts before and behind a text."""
        encoder = Encoder(self.tokenizer)
        return encoder.start, encoder.finish

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        if isinstance(source, TokenDataset):
            return super().read(source, needs, reading)
        before, behind = self.around
        room = length_limit(reading.max_length, self.config) - len(before) - len(behind)
        data = super().read(source, needs, replace(reading, max_length=room))
        return replace(data, examples=tuple(self._surrounded(example) for example in data))

    def _surrounded(self, example: TokenExample) -> TokenExample:
        cells = tuple(map(self._cell, example.cells))
        views = {view: tuple(map(self._cell, own)) for view, own in example.views.items()}
        return replace(example, cells=cells, views=views, columns=self._columns(example.columns))

    def _cell(self, cell: Cell) -> Cell:
        before, behind = self.around
        scored = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
        return Cell(
            np.concatenate([cell.context, behind]),
            np.concatenate([before, cell.response]),
            np.concatenate([np.zeros(len(before), bool), scored]) if len(before) else cell.scored,
        )

    def _columns(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Annotations of tokens, with a 0 for the start token."""
        width = len(self.around[0])
        return {
            name: tuple(np.concatenate([np.zeros(width, row.dtype), row]) for row in values)
            if isinstance(values, tuple)
            else values
            for name, values in columns.items()
        }

    def batching(self, data: Dataset[TokenExample], packing: str) -> Batching:
        cells = [example.all_cells for example in data]
        return PaddedBatching(
            [len(some) + len({cell.context.tobytes() for cell in some}) for some in cells],
            [max(max(len(cell.context), len(cell.response)) for cell in some) for some in cells],
        )

    @staticmethod
    def collate(items: Sequence[TokenExample], seeds: Sequence[int] = ()) -> EncoderDecoderRows:
        return arrange(items)

    @staticmethod
    def adapt(model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False) -> str:
        """Make an encoder–decoder language model score, and return the name of its packing.

        Call it after adapters are added and before the model is wrapped for distribution or mixed precision.
        The way it will be scored is checked on the model itself, against its own forward with labels, one
        response at a time. A second call changes nothing. Dropout is set to 0 unless ``keep_dropout``. Raises
        :class:`PreferoError` for another packing, for a model that is no encoder–decoder language model, and
        for one that gives other numbers than its own forward.
        """
        if packing not in ("auto", "padded"):
            raise PreferoError(
                f"layout is {packing}, but the prompts and responses of an encoder–decoder are rows of their "
                "own: leave training.layout out"
            )
        inner = innermost(model)
        if not inner.config.is_encoder_decoder:
            raise PreferoError(
                f"{type(inner).__name__} has no encoder: it reads prompt and response as one text, which "
                "prefero.models.causal.scoring.Language scores; encoder–decoders are loaded with "
                "AutoModelForSeq2SeqLM"
            )
        if ATTRIBUTE not in vars(inner):
            if not keep_dropout:
                zero_dropout(model)
            install(inner, checked(inner))
        return "encoder and decoder rows"

    @staticmethod
    def score(
        model: nn.Module,
        inputs: EncoderDecoderRows,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        """Score every view of a micro-batch in one call of the (possibly wrapped) model.

        As :meth:`prefero.models.causal.scoring.Language.score`, without the signals of states after every
        layer and mean activations. Second models are encoder–decoders with the same vocabulary.
        """
        _refuse_unreadable(signals)
        adapt = EncoderDecoder.adapt
        return scored_views(model, inputs, inputs.prompts, decode, adapt, signals, others or {})

    def check(self, needs: Needs) -> None:
        super().check(needs)
        _refuse_unreadable(sorted(signals_of(needs), key=repr))


def _refuse_unreadable(signals: Iterable[Signal]) -> None:
    for signal in signals:
        if signal.name in STATES and signal.name not in READABLE:
            raise PreferoError(
                f"an encoder–decoder gives no signal {signal.name!r}; of states, there are "
                f"{', '.join(READABLE)}"
            )
