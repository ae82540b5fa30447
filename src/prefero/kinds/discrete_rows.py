"""Rows of sequences on the way from noise: every example's times and states drawn from its own seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from prefero.data.cells import Cell, TokenExample
from prefero.models.discrete_diffusion import CorruptedStates, DiscreteDiffusionAdapter, Sequences
from prefero.objectives.batch import TokenLogps


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the states of an example are drawn; ``settings`` are all of the kind's, for fingerprints."""

    adapter: DiscreteDiffusionAdapter
    draws: int
    noise_per: Literal["response", "example"]
    settings: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SequenceExample(TokenExample):
    """An example of sequences: its tokens are those of the text, or times."""

    drawing: Drawing

    @property
    def lengths(self) -> tuple[int, ...]:
        if self.drawing.adapter.tokens == "time":
            return (self.drawing.draws,) * len(self.cells)
        return tuple(len(cell.response) for cell in self.cells)

    def fingerprint(self) -> bytes:
        inner = TokenExample.fingerprint(self)
        return hashlib.sha256(inner + self.drawing.settings.encode()).digest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a view is on the response axis of a row, and how many tokens its longest response has."""

    first: int
    last: int
    longest: int


@dataclass(frozen=True, slots=True)
class CorruptedRow:
    """Examples whose responses, and those of their views, stand side by side on the response axis.

    ``starts`` says behind how many positions of context a response begins. Its length is how many tokens go
    through the network.
    """

    corrupted: CorruptedStates
    starts: Int[Tensor, "example response"]
    places: Mapping[str, Place]

    def __len__(self) -> int:
        _, _, draws, positions = self.corrupted.states.shape
        return int(self.corrupted.sequences.scored.any(-1).sum()) * draws * positions

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CorruptedRow:
        return CorruptedRow(
            self.corrupted.to(device, non_blocking),
            self.starts.to(device, non_blocking=non_blocking),
            self.places,
        )

    def by_view(self, scored: TokenLogps, tokens: Literal["time", "position"]) -> dict[str, TokenLogps]:
        """What was scored, taken apart; positions are counted from where the response begins."""
        return {
            view: TokenLogps(self._part(scored.logps, place, tokens), self._part(scored.mask, place, tokens))
            for view, place in self.places.items()
        }

    def masks(self, tokens: Literal["time", "position"]) -> dict[str, Bool[Tensor, "example response token"]]:
        """Where :meth:`by_view` gives numbers."""
        scored = self.corrupted.sequences.scored
        if tokens == "time":
            scored = scored.any(-1, keepdim=True).expand(*scored.shape[:2], self.corrupted.times.shape[1])
        return {view: self._part(scored, place, tokens) for view, place in self.places.items()}

    def _part(self, values: Tensor, place: Place, tokens: Literal["time", "position"]) -> Tensor:
        values = values[:, place.first : place.last]
        if tokens == "time":
            return values
        at = self.starts[:, place.first : place.last, None]
        at = at + torch.arange(place.longest, device=values.device)
        inside = at < values.shape[-1]
        found = values.gather(-1, at.clamp(max=values.shape[-1] - 1))
        return torch.where(inside, found, torch.zeros_like(found))


def corrupted_row(items: Sequence[SequenceExample], seeds: Sequence[int]) -> CorruptedRow:
    """One row. An example's times and states are its seed's, whatever stands beside it."""
    drawing = items[0].drawing
    by_view = {view: [_cells(item, view) for item in items] for view in ("", *items[0].views)}
    counts = [max(map(len, cells)) for cells in by_view.values()]
    ends = list(accumulate(counts))
    places = {
        view: Place(end - count, end, max(len(cell.response) for some in cells for cell in some))
        for (view, cells), count, end in zip(by_view.items(), counts, ends, strict=True)
    }
    positions = max(len(cell.context) + len(cell.response) for item in items for cell in item.all_cells)
    shape = (len(items), ends[-1])
    tokens = np.zeros((*shape, positions), np.int64)
    there, generated = np.zeros(tokens.shape, np.bool_), np.zeros(tokens.shape, np.bool_)
    states = np.zeros((*shape, drawing.draws, positions), np.int64)
    starts, times = np.zeros(shape, np.int64), []
    for example, (item, seed) in enumerate(zip(items, seeds, strict=True)):
        drawn_times, drawn = _drawn(item, seed)
        times.append(drawn_times)
        for view, place in places.items():
            for response, (cell, state) in enumerate(zip(_cells(item, view), drawn[view], strict=True)):
                at = (example, place.first + response)
                start, end = len(cell.context), len(cell.context) + len(cell.response)
                starts[at] = start
                tokens[at][:start], tokens[at][start:end] = cell.context, cell.response
                there[at][:end], generated[at][start:end] = True, _scored(cell)
                states[at][:, :start], states[at][:, start:end] = cell.context, state
    given = Sequences(torch.from_numpy(tokens), torch.from_numpy(generated), torch.from_numpy(there))
    corrupted = CorruptedStates(given, torch.stack(times), torch.from_numpy(states))
    return CorruptedRow(corrupted, torch.from_numpy(starts), places)


def _drawn(
    item: SequenceExample, seed: int
) -> tuple[Float[Tensor, " draw"], dict[str, list[NDArray[np.int64]]]]:
    """An example's times, and the states of the responses of each view, ``[draw token]``; what a view shares
    with the example itself is in the same state there."""
    distinct = list(item.cells)
    which: dict[str, list[int]] = {"": list(range(len(distinct)))}
    for view, cells in item.views.items():
        which[view] = []
        for cell in cells:
            found = [place for place in _same(cell, item.cells) if place not in which[view]]
            which[view].append(found[0] if found else len(distinct))
            distinct += [] if found else [cell]
    lengths = [len(cell.response) for cell in distinct]
    tokens = np.zeros((1, len(distinct), max(lengths)), np.int64)
    generated = np.zeros(tokens.shape, np.bool_)
    for place, cell in enumerate(distinct):
        tokens[0, place, : lengths[place]] = cell.response
        generated[0, place, : lengths[place]] = _scored(cell)
    drawn = item.drawing.adapter.draw(
        Sequences(torch.from_numpy(tokens), torch.from_numpy(generated)),
        torch.Generator().manual_seed(seed),
        draws=item.drawing.draws,
        noise_per=item.drawing.noise_per,
    )
    states = [one[:, :length].numpy() for one, length in zip(drawn.states[0], lengths, strict=True)]
    return drawn.times[0], {view: [states[place] for place in some] for view, some in which.items()}


def _same(cell: Cell, cells: Sequence[Cell]) -> Iterator[int]:
    for place, other in enumerate(cells):
        if np.array_equal(cell.response, other.response):
            yield place


def _cells(item: TokenExample, view: str) -> tuple[Cell, ...]:
    return item.views[view] if view else item.cells


def _scored(cell: Cell) -> NDArray[np.bool_] | bool:
    return True if cell.scored is None else cell.scored


def sequences(item: TokenExample, drawing: Drawing) -> SequenceExample:
    """The example, with how its states are drawn."""
    if isinstance(item, SequenceExample):
        return replace(item, drawing=drawing)
    return SequenceExample(
        item.cells, item.columns, item.index, item.views, item.truncated, item.images, drawing=drawing
    )
