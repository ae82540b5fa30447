"""Metrics of recommendations and their fairness. Gao et al., 2024, arXiv 2412.09243 (SPRec), and its code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from prefero.errors import PreferoError


def hit_rate(recommended: Sequence[Sequence[Hashable]], target: Sequence[Hashable], k: int) -> float:
    """The share of users whose item is among their first ``k`` (HR@k)."""
    return fmean(wanted in items[:k] for items, wanted in zip(recommended, target, strict=True))


def ndcg(gains: Sequence[float], k: int | None = None, *, ideal: Sequence[float] | None = None) -> float:
    """Σ gain_i / log2(i + 1) over the first ``k`` ranks, over the best order's; 0 where nothing is relevant.
    ``ideal`` are all relevant gains if the list lacks some. Järvelin and Kekäläinen, 2002."""
    best = sorted(gains if ideal is None else ideal, reverse=True)
    most = _discounted(best[:k])
    return _discounted(gains[:k]) / most if most > 0 else 0.0


def mean_ndcg(recommended: Sequence[Sequence[Hashable]], target: Sequence[Hashable], k: int) -> float:
    """NDCG@k of lists with one relevant item each, over users."""
    return fmean(
        ndcg([float(item == wanted) for item in items], k, ideal=[1.0])
        for items, wanted in zip(recommended, target, strict=True)
    )


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def genre_shares(items: Sequence[int], genres_of: Sequence[Sequence[int]], genres: int) -> list[float]:
    """Each genre's share of the recommended items; an item of k genres counts 1/k for each."""
    totals = [0.0] * genres
    for item in items:
        for genre in genres_of[item]:
            totals[genre] += 1 / len(genres_of[item])
    everything = sum(totals)
    return [total / everything for total in totals] if everything else totals


@dataclass(frozen=True, slots=True)
class GenreFairness:
    """The differences between the genres' shares in the recommendations and in the users' histories: their
    range (DGU) and the mean of their absolute values (MGU), 0 at best."""

    shares: tuple[float, ...]
    range: float
    mean: float


def genre_fairness(
    recommended: Sequence[Sequence[int]],
    genres_of: Sequence[Sequence[int]],
    history_shares: Sequence[float],
) -> GenreFairness:
    """The fairness of the first k items of every user; the lists are already cut to k.

    Raises:
        PreferoError: an item has a genre that the histories do not have.
    """
    if any(genre >= len(history_shares) for genres in genres_of for genre in genres):
        raise PreferoError(f"an item has a genre beyond the {len(history_shares)} of the histories.")
    shares = genre_shares([item for items in recommended for item in items], genres_of, len(history_shares))
    gaps = [ours - theirs for ours, theirs in zip(shares, history_shares, strict=True)]
    return GenreFairness(tuple(shares), max(gaps) - min(gaps), sum(map(abs, gaps)) / len(gaps))


def distinct_share(recommended: Sequence[Sequence[Hashable]]) -> float:
    """Distinct items over all recommended items (DivRatio)."""
    items = [item for of_user in recommended for item in of_user]
    return len(set(items)) / len(items)


def over_recommended_share(recommended: Sequence[Sequence[Hashable]], most: int = 3) -> float:
    """The share of the ``most`` items recommended most often (ORRatio): 1 where everyone gets the same."""
    counts = Counter(item for of_user in recommended for item in of_user)
    return sum(count for _, count in counts.most_common(most)) / counts.total()
