"""How often a reward orders held-out pairs as their annotators did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, wilson


@dataclass(frozen=True, slots=True)
class RankingAccuracy:
    """``accuracy`` is the share of ``pairs`` whose chosen response has the higher reward; a tie is wrong."""

    accuracy: float
    interval: Interval
    pairs: int
    ties: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ranking_accuracy(margins: Sequence[float], *, confidence: float = 0.95) -> RankingAccuracy:
    """From the rewards' margins, chosen minus rejected, one a pair, with Wilson's interval over pairs.

    The margins of an objective's implicit reward are ``"rewards/margins"`` of
    :meth:`~prefero.training.trainer.PreferenceTrainer.evaluate_examples`; any other reward serves as well.

    Raises:
        PreferoError: there are no pairs, or a margin is not a number.
    """
    if not margins:
        raise PreferoError("a ranking accuracy needs at least one pair; got none.")
    for i, margin in enumerate(margins):
        if math.isnan(margin):
            raise PreferoError(f"the margin of pair {i + 1} is not a number.")
    accuracy = sum(margin > 0 for margin in margins) / len(margins)
    return RankingAccuracy(
        accuracy,
        wilson(accuracy, len(margins), confidence),
        pairs=len(margins),
        ties=sum(margin == 0 for margin in margins),
    )
