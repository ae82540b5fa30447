"""Encoder–decoders: every prompt is encoded once, every response decoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prefero.data.encode import Encoder
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.encoder_decoder import scoring as seq2seq
from prefero.models.encoder_decoder.scoring import EncoderDecoderRows, arrange
from prefero.models.kind import Layout, PaddedRows, Reading, Rows
from prefero.models.loading import innermost
from prefero.models.signals import STATES, SecondModel, check_signals
from prefero.models.text import TextKind, has_experts, length_limit
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes, model_names, signals_of

Ids = NDArray[np.int64]


class EncoderDecoder(TextKind):
    """T5, BART and their like. What their tokenizers put around a text stands around prompts and responses:
    the encoder reads the end token behind a prompt, and a start token that every response begins with (BART)
    is read, but not scored.

    A row costs its prompts and responses, all as long as the longest of them.
    """

    name = "encoder_decoder"
    task_type = "SEQ_2_SEQ_LM"
    monitors = frozenset({"entropy", "top_k_mass"})
    loader, what = "AutoModelForSeq2SeqLM", "encoder–decoder language model"

    @cached_property
    def around(self) -> tuple[Ids, Ids]:
        """What the tokenizer puts before and behind a text."""
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
        def all_of(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return tuple(self._cell(cell) for cell in cells)

        views = {view: all_of(cells) for view, cells in example.views.items()}
        return replace(
            example, cells=all_of(example.cells), views=views, columns=self._columns(example.columns)
        )

    def _cell(self, cell: Cell) -> Cell:
        before, behind = self.around
        scored = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
        return Cell(
            np.concatenate([cell.context, behind]),
            np.concatenate([before, cell.response]),
            np.concatenate([np.zeros(len(before), bool), scored]) if len(before) else cell.scored,
        )

    def _columns(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Annotations of tokens say nothing of the start token."""
        width = len(self.around[0])
        return {
            name: tuple(np.concatenate([np.zeros(width, row.dtype), row]) for row in values)
            if isinstance(values, tuple)
            else values
            for name, values in columns.items()
        }

    def rows(self, data: TokenDataset, layout: str) -> Rows:
        cells = [example.all_cells for example in data]
        return PaddedRows(
            [len(some) + len({cell.context.tobytes() for cell in some}) for some in cells],
            [max(max(len(cell.context), len(cell.response)) for cell in some) for some in cells],
        )

    def budget(self, layout: str, device: torch.device) -> int:
        return 4096 if device.type == "cpu" else 16384

    def collate(self, items: Sequence[TokenExample], seeds: Sequence[int]) -> EncoderDecoderRows:
        return arrange(items)

    def adapt(self, model: nn.Module, layout: Layout = "auto", *, keep_dropout: bool = False) -> str:
        if layout not in ("auto", "padded"):
            raise PreferoError(
                f"layout is {layout}, but the prompts and responses of an encoder–decoder are rows of their "
                "own: leave training.layout out"
            )
        seq2seq.adapt(model, keep_dropout=keep_dropout)
        return "encoder and decoder rows"

    def score(
        self,
        model: nn.Module,
        inputs: EncoderDecoderRows,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        return seq2seq.score(model, inputs, signals, others=others)

    def masks(self, inputs: EncoderDecoderRows) -> dict[str, Tensor]:
        return {view: cells.index >= 0 for view, cells in inputs.cells.items()}

    def check(self, needs: Needs) -> None:
        signals = sorted(signals_of(needs), key=repr)
        check_signals(signals, dict.fromkeys(model_names(needs)))
        for signal in signals:
            if signal.name in STATES and signal.name not in seq2seq.READABLE:
                raise PreferoError(
                    f"an encoder–decoder gives no signal {signal.name!r}; of states, there are "
                    f"{', '.join(seq2seq.READABLE)}"
                )

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        inner: Any = innermost(model.model if isinstance(model, SecondModel) else model)
        return {"hidden": inner.config.hidden_size, "layer": inner.config.num_hidden_layers}

    def leaves_out(self, model: nn.Module) -> bool:
        return has_experts(self.config)
