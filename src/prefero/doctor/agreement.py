"""How far several annotators agree beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.evaluate.intervals import Interval

DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """``alpha`` is Krippendorff's for nominal votes: 1 is full agreement, 0 what chance gives. ``observed``
    is the share of couples of votes on one row that agree. ``clashing`` is the share of couples, neither a
    tie, that prefer different sides, over ``decided`` rows with such couples; None without any. ``split`` are
    the rows whose votes are not all the same.
    """

    alpha: float
    interval: Interval
    observed: float
    clashing: float | None
    decided: int
    split: tuple[int, ...]
    rows: int
    judges: int


def agreement(rows: Sequence[int], votes: Sequence[Sequence[Any]], *, seed: int = 0) -> Agreement | None:
    """Of rows with their votes, None for one that was not cast; None if no row has two.

    Krippendorff's α (2011), its interval by resampling the rows 1,000 times.
    """
    cast = [(row, [vote for vote in own if vote is not None]) for row, own in zip(rows, votes, strict=True)]
    cast = [(row, own) for row, own in cast if len(own) > 1]
    if not cast:
        return None
    kinds = sorted({vote for _, own in cast for vote in own})
    counts = np.asarray([[own.count(kind) for kind in kinds] for _, own in cast], float)
    draws = np.random.default_rng(seed).integers(len(cast), size=(DRAWS, len(cast)))
    weights = np.stack([np.bincount(draw, minlength=len(cast)) for draw in draws]).astype(float)
    alphas = _alpha(counts, weights)
    low, high = np.quantile(alphas, [0.025, 0.975])
    clashing, decided = _clashing(counts, kinds)
    sizes = counts.sum(1)
    same = (counts * (counts - 1)).sum(1) / (sizes * (sizes - 1))
    return Agreement(
        float(_alpha(counts, np.ones((1, len(cast))))[0]),
        Interval(float(low), float(high)),
        float(same.mean()),
        clashing,
        decided,
        tuple(row for row, own in cast if len(set(own)) > 1),
        len(cast),
        int(np.median(sizes)),
    )


def _alpha(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """α of each weighting of the rows: 1 − observed over expected disagreement."""
    sizes = counts.sum(1)
    disagreeing = (sizes * sizes - (counts * counts).sum(1)) / (sizes - 1)
    kinds = weights @ counts
    total = kinds.sum(1)
    observed = weights @ disagreeing / total
    expected = (total * total - (kinds * kinds).sum(1)) / (total * (total - 1))
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 1.0)


def _clashing(counts: NDArray[np.float64], kinds: Sequence[str]) -> tuple[float | None, int]:
    sides = [counts[:, kinds.index(kind)] if kind in kinds else np.zeros(len(counts)) for kind in ("1", "2")]
    sizes = sides[0] + sides[1]
    decided = sizes > 1
    if not decided.any():
        return None, 0
    clashes = (2 * sides[0] * sides[1])[decided] / (sizes * (sizes - 1))[decided]
    return float(clashes.mean()), int(decided.sum())
