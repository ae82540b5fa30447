"""Recommendations: whether they hit, and whom and what they leave out.

Gao et al., 2024, arXiv 2412.09243 (SPRec), and its released evaluation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from prefero.errors import PreferoError


def hit_rate(recommended: Sequence[Sequence[Hashable]], target: Sequence[Hashable], k: int) -> float:
    """The share of users whose item is among their first ``k`` (HR@k)."""
    hits = [wanted in items[:k] for items, wanted in zip(recommended, target, strict=True)]
    return sum(hits) / len(hits)


def ndcg(gains: Sequence[float], k: int | None = None, *, ideal: Sequence[float] | None = None) -> float:
    """Σ gain_i / log2(i + 1) over the first ``k`` ranks, over the best order's; linear gains, 0 where nothing
    is relevant. ``ideal`` are all relevant gains if the list does not hold every relevant item. Järvelin and
    Kekäläinen, 2002."""
    best = sorted(gains if ideal is None else ideal, reverse=True)
    most = _discounted(best[:k])
    return _discounted(gains[:k]) / most if most > 0 else 0.0


def mean_ndcg(recommended: Sequence[Sequence[Hashable]], target: Sequence[Hashable], k: int) -> float:
    """NDCG@k of lists with one relevant item each, over users."""
    each = [
        ndcg([float(item == wanted) for item in items], k, ideal=[1.0])
        for items, wanted in zip(recommended, target, strict=True)
    ]
    return sum(each) / len(each)


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def genre_shares(items: Sequence[int], genres_of: Sequence[Sequence[int]], genres: int) -> list[float]:
    """Each genre's share of the recommended items; one of several genres counts a part for each."""
    totals = [0.0] * genres
    for item in items:
        for genre in genres_of[item]:
            totals[genre] += 1 / len(genres_of[item])
    everything = sum(totals)
    return [total / everything for total in totals] if everything else totals


@dataclass(frozen=True, slots=True)
class GenreFairness:
    """How the genres' shares in what is recommended differ from those in the users' histories: the range of
    the differences (DGU) and the mean of their sizes (MGU), 0 at best."""

    shares: tuple[float, ...]
    range: float
    mean: float


def genre_fairness(
    recommended: Sequence[Sequence[int]],
    genres_of: Sequence[Sequence[int]],
    history_shares: Sequence[float],
) -> GenreFairness:
    """Over the first k items of every user, all lists cut to k already.

    Raises:
        PreferoError: a genre that the histories do not know.
    """
    if any(genre >= len(history_shares) for of in genres_of for genre in of):
        raise PreferoError(f"an item has a genre beyond the {len(history_shares)} of the histories.")
    shares = genre_shares([item for items in recommended for item in items], genres_of, len(history_shares))
    gaps = [ours - theirs for ours, theirs in zip(shares, history_shares, strict=True)]
    return GenreFairness(tuple(shares), max(gaps) - min(gaps), sum(map(abs, gaps)) / len(gaps))


def distinct_share(recommended: Sequence[Sequence[Hashable]]) -> float:
    """Different items over all that are recommended (DivRatio)."""
    items = [item for of in recommended for item in of]
    return len(set(items)) / len(items)


def over_recommended_share(recommended: Sequence[Sequence[Hashable]], most: int = 3) -> float:
    """The share of the ``most`` items recommended most often (ORRatio): 1 where everyone gets the same."""
    counts = Counter(item for of in recommended for item in of)
    return sum(count for _, count in counts.most_common(most)) / counts.total()
