"""Tabular policies as a kind: text whose prompts and responses stand in the model's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from prefero.data.examples import Example, Examples
from prefero.data.formats import load_examples
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError, nearest
from prefero.models.kind import Batching, Dataset, Kind, PackedBatching, PackingChoice, Reading, no_options
from prefero.models.loading import ModelSource
from prefero.models.signals import SecondModel
from prefero.models.tabular import policy as tabular
from prefero.models.tabular.policy import SIGNALS, TableBatch, TabularConfig
from prefero.models.tabular.table import look_up
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes, signals_of

RESPONSES_AT_ONCE = 65536
"""A budget far above what a table needs: usually a whole optimizer step is one micro-batch."""


class Tabular(Kind[TokenExample, TableBatch]):
    """A micro-batch is some examples' places in the table, and costs one for every response."""

    name = "tabular"
    task_type = None
    redrawn = "a table is looked up faster than a cache on disk is, and in its own precision"
    monitors = frozenset({"entropy", "top_k_mass"})

    def __init__(self, config: TabularConfig, source: ModelSource) -> None:
        self.config, self.source, self.processor = config, source, None
        self.table, self.model_name = config.table, source.name

    @classmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        no_options(cls.name, options)
        if processor is not None:
            raise PreferoError("a tabular policy reads texts as they are: it takes no tokenizer")
        if isinstance(model, ModelSource):
            config, source = model.config(), model
        else:
            config = model.config
            source = ModelSource(str(getattr(config, "_name_or_path", "")))
        if not isinstance(config, TabularConfig):
            raise PreferoError(
                f"{source.name or type(model).__name__} is no tabular policy "
                "(prefero.models.tabular.policy.TabularPolicy), but model.kind is tabular"
            )
        return cls(config, source)

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        if isinstance(source, TokenDataset):
            return source
        return look_up(
            source if isinstance(source, Examples) else load_examples(source, split=reading.split),
            self.table,
            roles=needs.roles,
            columns=needs.columns,
            views={view: need.roles for view, need in needs.views.items()},
            seed=reading.seed,
            for_method=reading.method,
        )

    def batching(self, data: Dataset[TokenExample], packing: str) -> Batching:
        return PackedBatching([len(example.all_cells) for example in data])

    def budget(self, packing: str, device: torch.device) -> int:
        return RESPONSES_AT_ONCE

    def collate(self, items: Sequence[TokenExample], seeds: Sequence[int]) -> TableBatch:
        return tabular.arrange(items, self.table)

    def load(self) -> nn.Module:
        return self.source.load("AutoModel", "tabular policy")

    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        kept_in: Any = str(dtype).removeprefix("torch.")
        source = ModelSource(name, dtype=kept_in)
        config = source.config()
        if not isinstance(config, TabularConfig) or config.table != self.table:
            raise PreferoError(f"{name} does not have the policy's table: its responses would have no place")
        return source.load("AutoModel", "tabular policy")

    def adapt(self, model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False) -> str:
        return "table"

    def score(
        self,
        model: nn.Module,
        inputs: TableBatch,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        compared = {str(signal.against) for signal in signals if signal.against}
        logits = {name: _logits(other, inputs) for name, other in (others or {}).items() if name in compared}
        return tabular.score(model, inputs, signals, logits)

    def masks(self, inputs: TableBatch) -> dict[str, Tensor]:
        return {view: places.there[..., None] for view, places in inputs.views.items()}

    def check(self, needs: Needs) -> None:
        super().check(needs)
        for signal in signals_of(needs):
            if signal.name not in SIGNALS:
                raise PreferoError(
                    f"a tabular policy has no signal {signal.name!r}{nearest(signal.name, SIGNALS)}; "
                    f"there are {', '.join(SIGNALS)}"
                )

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        return {"hidden": len(self.table.prompts) * self.table.width, "layer": 1}

    def prompts(
        self, examples: Sequence[Example], count: int, max_length: int | None, **options: Any
    ) -> list[str]:
        prompts = dict.fromkeys(example.prompt for example in examples if isinstance(example.prompt, str))
        return list(prompts)[:count]

    @torch.no_grad()
    def sample(
        self, model: nn.Module, prompts: Sequence[str], seed: int, max_length: int | None, **options: Any
    ) -> list[str]:
        """A response each, drawn from the table."""
        numbers = [self.table.prompt(prompt, "a sample") for prompt in prompts]
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        logits = model(prompts=torch.tensor(numbers, device=device)).logits
        drawn = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0].tolist()
        return [self.table.responses[number][place] for number, place in zip(numbers, drawn, strict=True)]


def _logits(other: nn.Module | SecondModel, inputs: TableBatch) -> Tensor:
    second = other if isinstance(other, SecondModel) else SecondModel(other)
    with torch.no_grad(), second.context():
        return second.model(prompts=inputs.prompts).logits
