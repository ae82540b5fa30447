"""Causal language models: prompts and responses as token tries, packed into forests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prefero.data.cells import TokenExample
from prefero.data.packing import Forest, pack, unique_tokens
from prefero.data.tokenize import TokenDataset
from prefero.kinds.kind import Layout
from prefero.kinds.rows import PackedRows, PaddedRows, Rows
from prefero.kinds.text import TextKind, has_experts
from prefero.models import language
from prefero.models.second import SecondModel
from prefero.models.signals import check_signals
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
        return language.adapt(model, layout=layout, keep_dropout=keep_dropout)

    def score(
        self,
        model: nn.Module,
        inputs: Forest,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        return language.score(model, inputs, signals, others=others)

    def check(self, needs: Needs) -> None:
        check_signals(sorted(signals_of(needs), key=repr), dict.fromkeys(model_names(needs)))

    def masks(self, inputs: Forest) -> dict[str, Tensor]:
        return {view: cells.index >= 0 for view, cells in inputs.cells.items()}

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        return language.state_sizes(model)

    def leaves_out(self, model: nn.Module) -> bool:
        """Only parts that no text reaches (a vision tower) and experts can be left out of a step."""
        return self.config.get_text_config() is not self.config or has_experts(self.config)
