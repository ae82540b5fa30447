"""Labels with and without hindsight: what a response leads to, instead of how it reads.

Liang et al., 2025, RLHS, arXiv 2501.08617. The same pair is rated before its outcome is known (foresight) and
after (hindsight); the labels then differ where a response pleased and misled.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefero.errors import PreferoError


def shopping_utilities(costs: Sequence[float], meets: Sequence[bool]) -> list[float]:
    """What buying each item is worth, and last what buying nothing is.

    1 for the cheapest item that meets the requirement, the ratio of its cost to the price paid for another
    that does, −1 for one that does not, 0 for none.
    """
    cheapest = min((cost for cost, good in zip(costs, meets, strict=True) if good), default=0.0)
    bought = [cheapest / cost if good else -1.0 for cost, good in zip(costs, meets, strict=True)]
    return [*bought, 0.0]


def normalised_rating(rating: float) -> float:
    """A rating from 1 to 5 on the scale from −1 to 1.

    Raises:
        PreferoError: it is outside 1 to 5.
    """
    if not 1 <= rating <= 5:
        raise PreferoError(f"a rating is {rating}; expected 1 to 5.")
    return (rating - 3) / 2


def preferred_index(ratings: Sequence[float]) -> int | None:
    """Which of two ratings is higher; None for a tie, which makes no pair."""
    first, second = ratings
    return None if first == second else int(second > first)
