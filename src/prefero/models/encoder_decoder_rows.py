"""Examples as rows of an encoder and rows of a decoder: prompts and responses, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from prefero.data.cells import Cell, TokenExample
from prefero.data.packing import CellIndex

IGNORED = -100
"""Stands in labels where there is no token, as transformers has it."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderDecoderRows:
    """Some examples, views included, as rows of an encoder and rows of a decoder, each once.

    ``prompt_of`` is the encoder row of every decoder row. ``labels`` are the responses, one place wider than
    the longest, :data:`IGNORED` beyond their ends. A token is predicted at its place in the flattened
    ``labels``, and read by the decoder at the next one. ``scored`` are such places, each once, and ``cells``
    (``""``: the examples themselves) say which of them, and which states, belong to which response.
    """

    prompts: Int[Tensor, "prompt position"]
    there: Bool[Tensor, "prompt position"]
    prompt_of: Int[Tensor, "row"]
    labels: Int[Tensor, "row place"]
    scored: Int[Tensor, "scored"]
    cells: Mapping[str, CellIndex]

    def __len__(self) -> int:
        """What goes through the network: places of prompts and of responses."""
        return self.prompts.numel() + self.labels.numel()

    @property
    def parent(self) -> Int[Tensor, "scored"]:
        """Where the log-probability of each scored token is predicted."""
        return self.scored

    @property
    def target(self) -> Int[Tensor, "scored"]:
        """The scored tokens."""
        return self.labels.flatten()[self.scored]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EncoderDecoderRows:
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        cells = {view: index.to(device, non_blocking) for view, index in self.cells.items()}
        return replace(self, **moved, cells=cells)


def arrange(examples: Sequence[TokenExample]) -> EncoderDecoderRows:
    """Rows for these examples. Every example needs the views that the first one has."""
    views: dict[str, list[tuple[Cell, ...]]] = {"": [example.cells for example in examples]}
    for name in examples[0].views:
        views[name] = [example.views[name] for example in examples]
    cells = [cell for rows in views.values() for row in rows for cell in row]

    prompts: dict[bytes, int] = {}
    decoded: dict[tuple[int, bytes], int] = {}
    row_of = []
    for cell in cells:
        context, response = (np.asarray(ids, np.int64).tobytes() for ids in (cell.context, cell.response))
        prompt = prompts.setdefault(context, len(prompts))
        row_of.append(decoded.setdefault((prompt, response), len(decoded)))
    contexts = [np.frombuffer(prompt, np.int64) for prompt in prompts]
    responses = [np.frombuffer(response, np.int64) for _, response in decoded]
    labels = _padded(responses, 1 + max(map(len, responses)), IGNORED)

    wanted = np.zeros(labels.shape, bool)
    for cell, row in zip(cells, row_of, strict=True):
        wanted[row, : len(cell.response)] |= True if cell.scored is None else cell.scored
    scored = np.flatnonzero(wanted)
    position = np.full(wanted.size, -1)
    position[scored] = np.arange(len(scored))
    following = iter(row_of)
    places = {name: _places(rows, following, position.reshape(labels.shape)) for name, rows in views.items()}

    width = max(map(len, contexts))
    lengths = np.array([len(context) for context in contexts])
    return EncoderDecoderRows(
        prompts=torch.from_numpy(_padded(contexts, width, 0)),
        there=torch.from_numpy(np.arange(width) < lengths[:, None]),
        prompt_of=torch.tensor([prompt for prompt, _ in decoded]),
        labels=torch.from_numpy(labels),
        scored=torch.from_numpy(scored),
        cells=places,
    )


def _padded(rows: Sequence[Any], width: int, beyond: int) -> Any:
    filled = np.full((len(rows), width), beyond)
    for row, tokens in enumerate(rows):
        filled[row, : len(tokens)] = tokens
    return filled


def _places(rows: Sequence[tuple[Cell, ...]], row_of: Iterator[int], position: Any) -> CellIndex:
    """Where the cells of a view are, which are the next in ``row_of``."""
    shape = len(rows), max(len(cells) for cells in rows)
    longest = max(len(cell.response) for cells in rows for cell in cells)
    index = np.full((*shape, longest), -1)
    last, first = np.zeros((2, *shape), np.int64)
    for example, cells in enumerate(rows):
        for response, cell in enumerate(cells):
            row, length = next(row_of), len(cell.response)
            own = position[row, :length]
            index[example, response, :length] = own if cell.scored is None else np.where(cell.scored, own, -1)
            first[example, response] = row * position.shape[1]
            last[example, response] = first[example, response] + length
    return CellIndex(*(torch.from_numpy(places) for places in (index, last, first)))
