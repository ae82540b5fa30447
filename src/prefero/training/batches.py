"""Which examples meet in which optimizer step, and how a step is dealt to rows and ranks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from prefero.data.schema import SCHEMA, ColumnSpec
from prefero.data.trie import Cell
from prefero.models.kind import Dataset, Item, Kind, Rows
from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.needs import Needs
from prefero.reference.providers import References
from prefero.training.config import PreferenceArguments


@dataclass(frozen=True, slots=True)
class Draw:
    """One example as one row takes it. ``ghost``: a copy that keeps an empty row busy and counts nothing."""

    index: int
    epoch: int
    ghost: bool = False


class StepPlan:
    """The examples of every optimizer step, dealt to ``rows`` rows on each of ``world`` ranks.

    Every step takes ``examples_per_step`` examples of a seeded shuffle; the last, smaller one of an epoch is
    kept. ``rows`` is the smallest number for which every row of every step of ``epochs`` epochs fits
    ``tokens_per_row`` (an example larger than that has a row of its own). The plan is a pure function of its
    arguments: each rank computes it alone, and makes the same number of forward passes.
    """

    def __init__(
        self,
        count: int,
        layout: Rows,
        *,
        examples_per_step: int,
        tokens_per_row: int,
        world: int = 1,
        epochs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.count, self.layout, self.world = count, layout, world
        self.examples_per_step, self.seed, self.shuffle = examples_per_step, seed, shuffle
        self.steps_per_epoch = math.ceil(count / examples_per_step)
        self.rows = self._smallest_rows(tokens_per_row, epochs if shuffle else 1)

    def steps(self, epoch: int) -> list[list[int]]:
        """The examples of each step of an epoch."""
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        size = self.examples_per_step
        return [order[start : start + size].tolist() for start in range(0, self.count, size)]

    def deal(self, step: Sequence[int], epoch: int) -> list[list[Draw]]:
        """The rows of one step, ``rows × world`` of them, the largest first; neighbours run side by side."""
        dealt = sorted(self.layout.deal(step, self.rows * self.world), key=self.layout.cost, reverse=True)
        rows = [[Draw(index, epoch) for index in row] for row in dealt]
        smallest = min(step, key=lambda index: (self.layout.cost([index]), index))
        rows += [[Draw(smallest, epoch, ghost=True)] for _ in range(self.rows * self.world - len(rows))]
        return rows

    def rank_rows(self, epoch: int, rank: int) -> Iterator[list[Draw]]:
        """The rows that one rank scores in an epoch, ``rows`` of them a step."""
        for step in self.steps(epoch):
            yield from self.deal(step, epoch)[rank :: self.world]

    def _smallest_rows(self, tokens_per_row: int, epochs: int) -> int:
        largest = max(self.layout.cost([index]) for index in range(self.count))
        budget = max(tokens_per_row, largest)
        rows = 1
        for epoch in range(epochs):
            for step in self.steps(epoch):
                while any(
                    self.layout.cost(row) > budget for row in self.layout.deal(step, rows * self.world)
                ):
                    rows += 1
        return rows


class RankRows(Sampler[list[Draw]]):
    """One rank's rows of the epoch that ``set_epoch`` named last: a batch sampler for a ``DataLoader``."""

    def __init__(self, plan: StepPlan, rank: int = 0) -> None:
        self.plan, self.rank, self.epoch = plan, rank, 0
        # Looked up by transformers and accelerate on anything that yields batches.
        self.batch_size, self.drop_last = None, False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.plan.rows

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.rank_rows(self.epoch, self.rank)


Cached = Callable[[Sequence[Sequence[Cell]]], NDArray[np.float32]]
"""The stored log-probabilities of the cells of some examples, [example response token]."""

_FILL: Mapping[str, float | int | bool] = {"float": float("nan"), "int": -1, "bool": False}
"""What stands in a column where an example has fewer responses than others."""

_DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}


class DrawnItems(torch.utils.data.Dataset):
    """Items looked up by :class:`Draw`, so that epoch and weight travel with them, into worker processes
    too."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw) -> tuple[Draw, Item]:
        return draw, self.data[draw.index]


class Collator:
    """Makes one row of drawn items.

    ``columns`` are those that the objective reads; drawn ones, and what the ``kind`` of model draws, are made
    here from (``seed``, epoch, example), so they depend on no generator's state. ``cached`` gives the
    log-probabilities of models that are not scored.
    """

    def __init__(
        self,
        kind: Kind,
        columns: Collection[str] = (),
        *,
        views: Collection[str] = (),
        cached: Mapping[str, Cached] | None = None,
        seed: int = 0,
    ) -> None:
        self.kind, self.columns, self.views = kind, sorted(columns), sorted(views)
        self.cached, self.seed = cached or {}, seed

    def __call__(self, drawn: Sequence[tuple[Draw, Any]]) -> dict[str, Any]:
        draws, items = [draw for draw, _ in drawn], [item for _, item in drawn]
        return {
            "inputs": self.kind.collate(items, [self._seed(draw) for draw in draws]),
            "columns": {name: self._column(name, draws, items) for name in self.columns},
            "cached": {model: self._looked_up(read, items) for model, read in self.cached.items()},
            "example": torch.tensor([draw.index for draw in draws]),
            "weight": torch.tensor(0.0 if draws[0].ghost else 1.0),
        }

    def _looked_up(self, read: Cached, items: Sequence[Any]) -> dict[str, Tensor]:
        cells = {"": [item.cells for item in items]}
        cells |= {view: [item.views[view] for item in items] for view in self.views}
        return {view: torch.from_numpy(read(rows)) for view, rows in cells.items()}

    def _column(self, name: str, draws: Sequence[Draw], items: Sequence[Item]) -> Tensor:
        spec = SCHEMA[name]
        if spec.drawn:
            values = [self._noise(name, spec, *pair) for pair in zip(draws, items, strict=True)]
        else:
            values = [item.columns[name] for item in items]
        return collated(values, spec)

    def _noise(self, name: str, spec: ColumnSpec, draw: Draw, item: Item) -> Any:
        generator = np.random.default_rng([self.seed, draw.epoch, draw.index, zlib.crc32(name.encode())])
        if spec.axes == "example":
            return _open_uniform(generator, 1)[0]
        if spec.axes == "example response":
            return _open_uniform(generator, len(item.lengths))
        return tuple(_open_uniform(generator, length) for length in item.lengths)

    def _seed(self, draw: Draw) -> int:
        sequence = np.random.SeedSequence([self.seed, draw.epoch, draw.index])
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)  # a torch seed is signed


def _open_uniform(generator: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Uniform on (0, 1) with neither end, which a logarithm of it could not bear."""
    return ((generator.integers(0, 1 << 23, size) + 0.5) / (1 << 23)).astype(np.float32)


def collated(values: Sequence[Any], spec: ColumnSpec) -> Tensor:
    """One column of several examples; shorter ones are filled up: NaN, -1 or False for responses, 0 for
    tokens."""
    dtype = _DTYPES[spec.dtype]
    if spec.axes == "example":
        return torch.tensor(np.asarray(values), dtype=dtype)
    if spec.axes == "example hidden":
        return torch.from_numpy(np.stack([np.asarray(value) for value in values])).to(dtype)
    if spec.axes == "example response":
        result = torch.full(
            (len(values), max(len(value) for value in values)), _FILL[spec.dtype], dtype=dtype
        )
        for example, value in enumerate(values):
            result[example, : len(value)] = torch.as_tensor(np.asarray(value)).to(dtype)
        return result
    responses = max(len(value) for value in values)
    tokens = max((len(row) for value in values for row in value), default=0)
    result = torch.zeros((len(values), responses, tokens), dtype=dtype)
    for example, value in enumerate(values):
        for response, row in enumerate(value):
            result[example, response, : len(row)] = torch.as_tensor(np.asarray(row)).to(dtype)
    return result


def joined(batches: Sequence[PreferenceBatch]) -> PreferenceBatch:
    """The examples of all batches, one after the other. Gradients flow back to each."""
    first = batches[0]
    responses = max(batch.mask.shape[1] for batch in batches)
    return PreferenceBatch(
        models={name: _joined_logps([b.models[name] for b in batches], responses) for name in first.models},
        columns={name: _joined_column(name, [b.columns[name] for b in batches]) for name in first.columns},
        roles=first.roles,
        views={view: joined([b.views[view] for b in batches]) for view in first.views},
        progress=first.progress,
    )


def taken(batch: PreferenceBatch, examples: Tensor) -> PreferenceBatch:
    """Some of a batch's examples, in the order given."""

    def of(logps: TokenLogps) -> TokenLogps:
        signals = {signal: values[examples] for signal, values in logps.signals.items()}
        return TokenLogps(logps.logps[examples], logps.mask[examples], signals)

    return PreferenceBatch(
        models={name: of(logps) for name, logps in batch.models.items()},
        columns={name: values[examples] for name, values in batch.columns.items()},
        roles=batch.roles,
        views={view: taken(inner, examples) for view, inner in batch.views.items()},
        progress=batch.progress,
    )


def _joined_logps(parts: Sequence[TokenLogps], responses: int) -> TokenLogps:
    tokens = max(part.mask.shape[2] for part in parts)

    def of(values: Sequence[Tensor], per_token: bool) -> Tensor:
        return torch.cat([_filled(value, responses, tokens if per_token else None, 0) for value in values])

    signals: Mapping = {
        signal: of([part.signals[signal] for part in parts], signal.axes == "example response token")
        for signal in parts[0].signals
    }
    return TokenLogps(
        of([part.logps for part in parts], True), of([part.mask for part in parts], True), signals
    )


def _joined_column(name: str, parts: Sequence[Tensor]) -> Tensor:
    spec = SCHEMA[name]
    if not spec.axes.startswith("example response"):
        return torch.cat(list(parts))
    per_token = spec.axes.endswith("token")
    responses = max(part.shape[1] for part in parts)
    tokens = max(part.shape[2] for part in parts) if per_token else None
    return torch.cat(
        [_filled(part, responses, tokens, 0 if per_token else _FILL[spec.dtype]) for part in parts]
    )


def _filled(values: Tensor, responses: int, tokens: int | None, fill: float) -> Tensor:
    """``values`` [example response token …] widened to that many responses, and tokens unless None."""
    widen = [0, 0] * (values.dim() - 3) if values.dim() > 2 else []
    if values.dim() > 2:
        widen += [0, 0 if tokens is None else tokens - values.shape[2]]
    widen += [0, responses - values.shape[1]]
    return F.pad(values, widen, value=fill) if any(widen) else values


def rows_of(
    kind: Kind,
    data: Dataset,
    rows: RankRows,
    needs: Needs,
    references: References,
    args: PreferenceArguments,
) -> DataLoader:
    """One rank's rows, with the columns that are needed and the log-probabilities that are cached."""
    cached = {name: model.logps for name, model in references.cached.items()}
    return DataLoader(
        DrawnItems(data),
        batch_sampler=rows,
        collate_fn=Collator(kind, needs.columns, views=needs.views, cached=cached, seed=rows.plan.seed),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
