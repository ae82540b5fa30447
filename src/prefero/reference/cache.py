"""The disk cache of reference log-probabilities: filled once for a model and some cells, read ever after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prefero.data.cells import Cell, TokenExample
from prefero.data.packing import next_fit, unique_tokens
from prefero.errors import PreferoError
from prefero.kinds.kind import Kind
from prefero.reference.store import CellStore, Values, cell_key, stacked

_WRITE_SECONDS = 20.0
"""How much work a killed process may lose."""


def default_folder() -> Path:
    """``PREFERO_CACHE``, or ``references`` in the user's cache folder."""
    named = os.environ.get("PREFERO_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "prefero" / "references"


Progress = Callable[..., Iterable[list[TokenExample]]]
"""Wraps the rows that are to be scored, as :func:`tqdm.tqdm` does."""


@dataclass(frozen=True)
class Share:
    """Which part of the filling falls to this process. ``wait`` returns once all processes have called it."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


class CachedLogps:
    """Log-probabilities of one model, out of a :class:`~prefero.reference.store.CellStore`."""

    def __init__(self, store: CellStore) -> None:
        self.store = store

    def __call__(self, examples: Sequence[Sequence[Cell]]) -> NDArray[np.float32]:
        """The log-probabilities of the cells of some examples, [example response token], 0 where there is
        none."""
        return stacked([[self.store[cell_key(cell)] for cell in cells] for cells in examples])

    def lacking(self, examples: Iterable[TokenExample]) -> list[TokenExample]:
        """The cells that are not in the store yet, as examples of cells that are best scored together."""
        seen: set[bytes] = set()
        groups = []
        for example in examples:
            cells = []
            for cell in example.all_cells:
                key = cell_key(cell)
                if key not in self.store and key not in seen:
                    seen.add(key)
                    cells.append(cell)
            if cells:
                groups.append(replace(example, cells=tuple(cells), columns={}, views={}))
        return groups

    def fill(
        self,
        kind: Kind,
        model: nn.Module,
        examples: Iterable[TokenExample],
        *,
        tokens_per_row: int,
        device: torch.device | str = "cpu",
        share: Share | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Score what is lacking with ``model`` and write it; returns how many cells this process scored.

        Every process makes the same number of forward passes, so the model may be sharded over them. What is
        written stays if the process is killed, and is not scored again. ``progress`` wraps the rows.
        """
        share = share or Share()
        lacking = self.lacking(examples)
        share.wait()  # before anybody writes: all have to see the same gaps
        rows = _rows(lacking, tokens_per_row)
        mine = [rows[i % len(rows)] for i in range(share.rank, _up_to(len(rows), share.world), share.world)]
        scored = 0
        if rows:
            was_training = model.training
            model.eval()
            for keys, values in _in_portions(
                _scored(kind, model, progress(mine) if progress else mine, device)
            ):
                self.store.write(keys, values)
                scored += len(keys)
            model.train(was_training)
        share.wait()
        self.store.refresh()
        if self.lacking(examples):
            raise PreferoError(
                f"{self.store.folder} lacks scores that another process has written: the cache has to be a "
                "folder that all machines share; name one in PREFERO_CACHE"
            )
        return scored


def _rows(examples: Sequence[TokenExample], tokens_per_row: int) -> list[list[TokenExample]]:
    """Groups of cells in rows of neighbours by length, the longest first."""
    sizes = [unique_tokens(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (-sizes[i], i))
    return [[examples[i] for i in row] for row in next_fit(order, sizes, tokens_per_row)]


@torch.no_grad()
def _scored(
    kind: Kind, model: nn.Module, rows: Iterable[list[TokenExample]], device: torch.device | str
) -> Iterator[tuple[list[bytes], list[Values]]]:
    for row in rows:
        inputs = kind.collate(row, [0] * len(row)).to(device)
        logps = kind.score(model, inputs)[""].logps.float().cpu().numpy()
        cells = [
            (cell, logps[example, response, : len(cell.response)])
            for example, content in enumerate(row)
            for response, cell in enumerate(content.cells)
        ]
        yield [cell_key(cell) for cell, _ in cells], [values for _, values in cells]


def _in_portions(
    scored: Iterable[tuple[list[bytes], list[Values]]],
) -> Iterator[tuple[list[bytes], list[Values]]]:
    """What was scored, gathered until writing it is worth while."""
    keys: list[bytes] = []
    values: list[Values] = []
    since = time.monotonic()
    for more_keys, more_values in scored:
        keys += more_keys
        values += more_values
        if time.monotonic() - since > _WRITE_SECONDS:
            yield keys, values
            keys, values, since = [], [], time.monotonic()
    if keys:
        yield keys, values


def _up_to(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple


def open_store(
    fingerprint: str, folder: Path | None = None, description: Mapping[str, str] | None = None
) -> CellStore:
    """The store of a model: ``folder`` itself, or one named after the fingerprint in the default place.

    Raises :class:`PreferoError` where the folder cannot be written, or holds another model's scores.
    """
    place = folder or default_folder() / fingerprint[:32]
    try:
        return CellStore(place, fingerprint, description)
    except OSError as error:
        raise PreferoError(
            f"the reference cache {place} cannot be used ({error.strerror or error}); name another folder in "
            "PREFERO_CACHE or reference.cache"
        ) from None
