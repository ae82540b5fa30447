"""From the examples of a row to what is scored: a forest, columns, noise, cached log-probabilities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefero.data.cells import Cell, TokenExample
from prefero.data.packing import pack
from prefero.data.schema import SCHEMA, ColumnSpec
from prefero.training.plan import Draw

Cached = Callable[[Sequence[Sequence[Cell]]], NDArray[np.float32]]
"""The stored log-probabilities of the cells of some examples, [example response token]."""

_FILL: Mapping[str, float | int | bool] = {"float": float("nan"), "int": -1, "bool": False}
"""What stands in a column where an example has fewer responses than others."""

_DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}


class DrawnExamples(torch.utils.data.Dataset):
    """Examples looked up by :class:`Draw`, so that epoch and weight travel with them, into worker processes
    too."""

    def __init__(self, examples: Sequence[TokenExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> tuple[Draw, TokenExample]:
        return draw, self.examples[draw.index]


class Collator:
    """Makes one row of drawn examples.

    ``columns`` are those that the objective reads; drawn ones are made here from (``seed``, epoch, example),
    so they depend on no generator's state. ``cached`` gives the log-probabilities of models that are not
    scored.
    """

    def __init__(
        self,
        columns: Collection[str] = (),
        *,
        views: Collection[str] = (),
        cached: Mapping[str, Cached] | None = None,
        seed: int = 0,
    ) -> None:
        self.columns, self.views, self.cached, self.seed = sorted(columns), sorted(views), cached or {}, seed

    def __call__(self, drawn: Sequence[tuple[Draw, TokenExample]]) -> dict[str, Any]:
        draws, examples = [draw for draw, _ in drawn], [example for _, example in drawn]
        forest = pack(examples)
        cells = {"": [example.cells for example in examples]}
        cells |= {view: [example.views[view] for example in examples] for view in self.views}
        return {
            "forest": forest,
            "columns": {name: self._column(name, draws, examples) for name in self.columns},
            "cached": {
                model: {view: torch.from_numpy(read(rows)) for view, rows in cells.items()}
                for model, read in self.cached.items()
            },
            "example": torch.tensor([draw.index for draw in draws]),
            "weight": torch.tensor(0.0 if draws[0].ghost else 1.0),
        }

    def _column(self, name: str, draws: Sequence[Draw], examples: Sequence[TokenExample]) -> Tensor:
        spec = SCHEMA[name]
        if spec.drawn:
            values = [self._noise(name, spec, *pair) for pair in zip(draws, examples, strict=True)]
        else:
            values = [example.columns[name] for example in examples]
        return collated(values, spec)

    def _noise(self, name: str, spec: ColumnSpec, draw: Draw, example: TokenExample) -> Any:
        generator = np.random.default_rng([self.seed, draw.epoch, draw.index, zlib.crc32(name.encode())])
        if spec.axes == "example":
            return _open_uniform(generator, 1)[0]
        if spec.axes == "example response":
            return _open_uniform(generator, len(example.cells))
        return tuple(_open_uniform(generator, len(cell.response)) for cell in example.cells)


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
