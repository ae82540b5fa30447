"""Easy pairs first: curricula over pairs of scored candidates (Croitoru et al., 2024, arXiv 2405.13637)."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from prefero.errors import PreferoError
from prefero.feedback.media_pairs import ranked
from prefero.feedback.pairing import Pair, known

PromptPair = tuple[int, int, int]
"""A prompt, and the better and the worse of its candidates."""


def clear_pairs(scores: Sequence[Sequence[float]], least: float = 0.0) -> list[PromptPair]:
    """All pairs of candidates, by prompt, whose scores differ by more than ``least``."""
    return [
        (prompt, *((first, second) if own[first] > own[second] else (second, first)))
        for prompt, own in enumerate(scores)
        for first, second in itertools.combinations(range(len(known(own))), 2)
        if abs(own[first] - own[second]) > least
    ]


def gap_thresholds(gaps: Sequence[float], groups: int) -> list[float]:
    """``groups`` numbers from the largest gap down to the smallest, at equal distances."""
    if groups < 2:
        raise PreferoError(f"a curriculum has at least two thresholds, its first and last, not {groups}.")
    if not gaps:
        return []
    low, high = min(gaps), max(gaps)
    step = (high - low) / (groups - 1)
    return [high, *(low + step * k for k in reversed(range(1, groups - 1))), low]


def growing_stages(
    scores: Sequence[Sequence[float]], *, least: float = 0.0, groups: int = 6
) -> list[list[PromptPair]]:
    """Stage k trains on all pairs whose gap is at least the threshold k + 1: one stage less than ``groups``,
    each contains the one before, the last has all pairs. As in the released code."""
    pairs = clear_pairs(scores, least)
    gaps = [scores[prompt][better] - scores[prompt][worse] for prompt, better, worse in pairs]
    return [
        [pair for pair, gap in zip(pairs, gaps, strict=True) if gap >= threshold]
        for threshold in gap_thresholds(gaps, groups)[1:]
    ]


def rank_batches(scores: Sequence[float], batches: int = 5) -> list[list[Pair]]:
    """The pairs of one prompt's candidates by difference in rank, d: batch k of L has those with
    (M − 1)(L − k − 1)/L < d ≤ (M − 1)(L − k)/L, disjoint, the easiest first. As in the paper.

    Equal scores are ranked in their order.
    """
    if batches < 1:
        raise PreferoError(f"there is at least one batch, not {batches}.")
    order, steps = ranked(scores), max(len(scores) - 1, 1)
    found: list[list[Pair]] = [[] for _ in range(batches)]
    bounds = [steps * k for k in range(1, batches + 1)]
    for better, first in enumerate(order):
        for worse in range(better + 1, len(order)):
            # d · L against (M − 1) · k, in whole numbers
            place = bisect.bisect_left(bounds, (worse - better) * batches)
            found[batches - 1 - place].append((first, order[worse]))
    return [sorted(batch) for batch in found]
