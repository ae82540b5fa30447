"""From examples to micro-batches: which meet in which optimizer step, and what goes through the network.

A :class:`StepPlan` fixes the examples of every step and deals them to micro-batches and ranks;
:class:`RankBatches` hands one rank its share; a :class:`Collator` makes a :class:`MicroBatch` of the items
drawn. Once scored, micro-batches are :class:`~prefero.objectives.batch.PreferenceBatch`, which :func:`joined`
puts together again and :func:`mapped` moves.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from prefero.data.schema import SCHEMA, ColumnSpec
from prefero.data.trie import Cell, TokenExample
from prefero.models.kind import Batching, Dataset, Inputs, Item, Kind
from prefero.objectives.batch import PreferenceBatch, TokenLogps

# Which examples meet in a step


@dataclass(frozen=True, slots=True)
class Draw:
    """One example as one micro-batch takes it. A ``dummy`` is a copy that keeps a micro-batch from being
    empty and counts nothing."""

    index: int
    epoch: int
    dummy: bool = False


@dataclass(eq=False)
class StepPlan:
    """The examples of every optimizer step, dealt to ``micro_batches`` on each of ``world`` ranks.

    Every step takes ``examples_per_step`` of ``count`` examples, of a seeded shuffle; the last, smaller one
    of an epoch is kept. ``micro_batches`` is the smallest number for which every micro-batch of every step of
    ``epochs`` epochs fits ``tokens_per_row`` (an example larger than that has one of its own). The plan is a
    pure function of its arguments: each rank computes it alone, and makes the same number of forward passes.
    """

    count: int
    batching: Batching
    examples_per_step: int
    tokens_per_row: int
    world: int = 1
    epochs: int = 1
    seed: int = 0
    shuffle: bool = True
    steps_per_epoch: int = field(init=False)
    micro_batches: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.steps_per_epoch = math.ceil(self.count / self.examples_per_step)
        cost, deal = self.batching.cost, self.batching.deal
        budget = max(self.tokens_per_row, *(cost([index]) for index in range(self.count)))
        if self.batching.most(min(self.examples_per_step, self.count)) <= budget:
            return  # one is enough, whatever the order, and a plan of many epochs takes long
        for epoch in range(self.epochs if self.shuffle else 1):
            for step in self.steps(epoch):
                while any(cost(batch) > budget for batch in deal(step, self.micro_batches * self.world)):
                    self.micro_batches += 1

    def steps(self, epoch: int) -> list[list[int]]:
        """The examples of each step of an epoch."""
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        size = self.examples_per_step
        return [order[start : start + size].tolist() for start in range(0, self.count, size)]

    def examples_until(self, step: int) -> int:
        """Examples that the steps up to this one take."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.count + rest * self.examples_per_step

    def deal(self, step: Sequence[int], epoch: int) -> list[list[Draw]]:
        """The micro-batches of one step, ``micro_batches × world`` of them, the largest first; neighbours run
        side by side."""
        count, cost = self.micro_batches * self.world, self.batching.cost
        dealt = sorted(self.batching.deal(step, count), key=cost, reverse=True)
        batches = [[Draw(index, epoch) for index in batch] for batch in dealt]
        smallest = min(step, key=lambda index: (cost([index]), index))
        return batches + [[Draw(smallest, epoch, dummy=True)] for _ in range(count - len(batches))]


@dataclass(eq=False)
class RankBatches(Sampler[list[Draw]]):
    """One rank's micro-batches of an epoch, as draws: a batch sampler for a ``DataLoader``."""

    plan: StepPlan
    rank: int = 0
    epoch: int = 0
    # Looked up by transformers and accelerate on anything that yields batches.
    batch_size: int | None = None
    drop_last: bool = False

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.plan.micro_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in self.plan.steps(self.epoch):
            yield from self.plan.deal(step, self.epoch)[self.rank :: self.plan.world]


# What goes through the network


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """A collated micro-batch: some examples of an optimizer step, as they go through the network at once.

    ``inputs`` are scored; ``columns`` are the annotations that the objective reads; ``cached`` has the
    log-probabilities of models that are not scored, by model and view (``""``: the examples themselves).
    ``examples`` are places in the data set. ``weight`` is 0 for a dummy, whose numbers count nothing.
    """

    inputs: Inputs
    columns: Mapping[str, Tensor]
    cached: Mapping[str, Mapping[str, Float[Tensor, "example response token"]]]
    examples: Int[Tensor, " example"]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.examples)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MicroBatch:
        """The same micro-batch with its tensors on a device."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return MicroBatch(**send_to_device(values, device, non_blocking))


@dataclass(frozen=True, eq=False)
class DrawnItems(torch.utils.data.Dataset[tuple[Draw, Item]]):
    """Items looked up by :class:`Draw`, so that epoch and weight travel with them, into worker processes
    too."""

    data: Dataset[Item]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw) -> tuple[Draw, Item]:
        return draw, self.data[draw.index]


CachedScores = Callable[[Sequence[Sequence[Cell]]], NDArray[np.float32]]
"""The stored log-probabilities of the cells of some examples, [example response token]."""


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes one micro-batch of drawn items.

    ``columns`` are those that the objective reads; drawn ones, and what the ``kind`` of model draws, are made
    here from (``seed``, epoch, example), so they depend on no generator's state. ``cached`` gives the
    log-probabilities of models that are not scored.
    """

    kind: Kind
    columns: Collection[str] = ()
    views: Collection[str] = ()
    cached: Mapping[str, CachedScores] = field(default_factory=dict)
    seed: int = 0

    def __call__(self, drawn: Sequence[tuple[Draw, Item]]) -> MicroBatch:
        draws, items = [draw for draw, _ in drawn], [item for _, item in drawn]
        sequences = [np.random.SeedSequence([self.seed, draw.epoch, draw.index]) for draw in draws]
        # a torch seed is signed
        seeds = [int(sequence.generate_state(1, np.uint64)[0] >> 1) for sequence in sequences]
        cells: dict[str, list[tuple[Cell, ...]]] = {}
        if self.cached:  # so items are of cells, see Kind.redrawn
            examples = cast("list[TokenExample]", items)
            cells = {view: [one.views[view] for one in examples] for view in sorted(self.views)}
            cells[""] = [one.cells for one in examples]
        return MicroBatch(
            inputs=self.kind.collate(items, seeds),
            columns={name: self._column(name, draws, items) for name in sorted(self.columns)},
            cached={
                model: {view: torch.from_numpy(read(given)) for view, given in cells.items()}
                for model, read in self.cached.items()
            },
            examples=torch.tensor([draw.index for draw in draws]),
            weight=0.0 if draws[0].dummy else 1.0,
        )

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


def _open_uniform(generator: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Uniform on (0, 1) with neither end, whose logarithms are infinite or 0."""
    return ((generator.integers(0, 1 << 23, size) + 0.5) / (1 << 23)).astype(np.float32)


# Columns and batches of different sizes put together

_DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}

_FILL: Mapping[str, float | int | bool] = {"float": float("nan"), "int": -1, "bool": False}
"""Values of a column where an example has fewer responses than others; missing tokens are 0."""


def collated(values: Sequence[Any], spec: ColumnSpec) -> Tensor:
    """One column of several examples, filled up where an example has fewer responses or tokens."""
    dtype = _DTYPES[spec.dtype]
    of_tokens = spec.axes.endswith("token")
    tensors = [
        _concatenated([torch.as_tensor(tokens)[None] for tokens in value], 0)
        if of_tokens
        else torch.as_tensor(np.asarray(value))
        for value in values
    ]
    return _concatenated(
        [tensor[None].to(dtype) for tensor in tensors], 0 if of_tokens else _FILL[spec.dtype]
    )


def joined(batches: Sequence[PreferenceBatch]) -> PreferenceBatch:
    """The examples of all batches, one after the other. Gradients flow back to each."""
    first = batches[0]
    columns = {}
    for name in first.columns:
        fill = 0 if SCHEMA[name].axes.endswith("token") else _FILL[SCHEMA[name].dtype]
        columns[name] = _concatenated([batch.columns[name] for batch in batches], fill)
    return PreferenceBatch(
        models={name: _joined_logps([batch.models[name] for batch in batches]) for name in first.models},
        columns=columns,
        roles=first.roles,
        views={view: joined([batch.views[view] for batch in batches]) for view in first.views},
        progress=first.progress,
    )


def _joined_logps(parts: Sequence[TokenLogps]) -> TokenLogps:
    return TokenLogps(
        _concatenated([part.logps for part in parts], 0),
        _concatenated([part.mask for part in parts], 0),
        {signal: _concatenated([p.signals[signal] for p in parts], 0) for signal in parts[0].signals},
    )


def _concatenated(tensors: Sequence[Tensor], fill: float) -> Tensor:
    """Tensors one after the other on their first axis, widened to the largest of them on all others."""
    shapes = [tensor.shape[1:] for tensor in tensors]
    widest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    widened = []
    for tensor, shape in zip(tensors, shapes, strict=True):
        missing = [size - own for size, own in zip(widest, shape, strict=True)]
        padding = [number for size in reversed(missing) for number in (0, size)]
        widened.append(F.pad(tensor, padding, value=fill) if any(missing) else tensor)
    return torch.cat(widened)


def mapped(batch: PreferenceBatch, change: Callable[[Tensor], Tensor]) -> PreferenceBatch:
    """The batch with every tensor changed: moved to a device, detached, or cut down to some examples."""
    return replace(
        batch,
        models={
            name: TokenLogps(
                change(logps.logps),
                change(logps.mask),
                {signal: change(values) for signal, values in logps.signals.items()},
            )
            for name, logps in batch.models.items()
        },
        columns={name: change(values) for name, values in batch.columns.items()},
        views={view: mapped(inner, change) for view, inner in batch.views.items()},
    )
