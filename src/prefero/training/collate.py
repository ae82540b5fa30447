"""From the items of a row to what is scored: its inputs, columns, noise, cached log-probabilities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefero.data.cells import Cell
from prefero.data.schema import SCHEMA, ColumnSpec
from prefero.kinds.kind import Dataset, Item, Kind
from prefero.training.plan import Draw

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
