"""Token ids of an example: what each response is, and in which context it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    tokens that were dropped.
    """

    cells: tuple[Cell, ...]
    columns: Mapping[str, Any]
    index: int
    views: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    truncated: int = 0
