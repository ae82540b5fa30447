"""Token ids of an example: what each response is, and in which context it is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.pictures import Picture


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One response in one context: the unit that a model scores.

    ``context`` and ``response`` are int64 ids, each at least one token; the end token, where the response has
    one, is its last. ``scored`` marks the tokens that count (holes are partner turns and tool output);
    ``None`` means all of them.
    """

    context: NDArray[np.int64]
    response: NDArray[np.int64]
    scored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TokenExample:
    """An example after tokenisation; ``cells`` is the response axis.

    ``columns`` follow the axes of :data:`prefero.data.schema.SCHEMA`: a scalar, an array over responses, or a
    tuple of arrays over tokens. ``index`` is the position in the data set. ``views`` are the same responses
    under another prompt, or other responses under the same prompt, by view name. ``truncated`` counts the
    tokens that were dropped. ``images`` are those that its contexts show, by their keys in token ids.
    """

    cells: tuple[Cell, ...]
    columns: Mapping[str, Any]
    index: int
    views: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    truncated: int = 0
    images: Mapping[int, tuple[Picture, ...]] = field(default_factory=dict)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens each response has."""
        return tuple(len(cell.response) for cell in self.cells)

    @property
    def all_cells(self) -> tuple[Cell, ...]:
        """The cells, and those of the views."""
        return (*self.cells, *(cell for cells in self.views.values() for cell in cells))

    def fingerprint(self) -> bytes:
        """A hash of every token and annotation."""
        digest = hashlib.sha256()
        for view, cells in {"": self.cells, **self.views}.items():
            digest.update(view.encode())
            for cell in cells:
                for array in (cell.context, cell.response, cell.scored):
                    digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
                    digest.update(b"|")
        digest_columns(digest, self.columns)
        return digest.digest()


def digest_columns(digest: Any, columns: Mapping[str, Any]) -> None:
    """Adds annotations to a hash."""
    for name in sorted(columns):
        values = columns[name]
        digest.update(f"{name}=".encode())
        for value in values if isinstance(values, tuple) else (values,):
            digest.update(np.asarray(value).tobytes() + b"|")
