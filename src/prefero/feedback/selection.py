"""Which examples to train on, prompts to sample for and responses to annotate: pure functions of scores.

What selects returns positions. Scores are made without a gradient.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.feedback.pairing import known

Scores = Float[Tensor, " example"]


def highest(scores: Scores, count: int) -> list[int]:
    """The positions of the ``count`` highest scores, the highest first, the earlier of equals before.

    Raises:
        PreferoError: there are fewer, or one is not a number.
    """
    known(scores.tolist())
    if not 0 <= count <= len(scores):
        raise PreferoError(f"{count} of {len(scores)} cannot be selected.")
    return scores.argsort(descending=True, stable=True)[:count].tolist()


def clipped_margin(margin: Scores, low: float, high: float) -> Scores:
    """A margin as a probability: 0 at ``low`` and below, 1 at ``high`` and above, a line between.

    Raises:
        PreferoError: ``high`` is not above ``low``, so that nothing lies between; a margin is not a number.
    """
    known(margin.tolist())
    if not low < high:
        raise PreferoError(f"margins are clipped from {low} to {high}; expected a lower and a higher bound.")
    return (margin.clamp(low, high) - low) / (high - low)


def upper_bound(margin: Scores, few: int = 30) -> float:
    """Where to clip margins from above: the smallest of them with fewer than ``few`` at or above it, or fewer
    than the distance from it to the largest. Deng et al., 2025, arXiv 2502.14560.

    Raises:
        PreferoError: that is the smallest of all, as in a pool of fewer than ``few``: every pair would count
            as certain. A margin is not a number.
    """
    values = sorted(known(margin.tolist()))
    if not values:
        raise PreferoError("a bound needs margins; got none.")

    def scarce(value: float) -> bool:
        above = len(values) - bisect.bisect_left(values, value)
        return above < few or above < values[-1] - value

    bound = next((value for value in values if scarce(value)), values[-1])
    if bound == values[0]:
        raise PreferoError(
            f"no bound above the smallest of {len(values)} margins, {bound:g}, leaves {few} or more at it, "
            "and more than the distance to the largest: clipped there, every pair would count as "
            "certain. Take more pairs, a smaller `few`, margins of a smaller scale, or a bound of your own."
        )
    return bound


def fused(*probabilities: Scores) -> Scores:
    """Several sources' probabilities that a pair's label is right, as one: Π p / (Π p + Π (1 − p)).

    ½ where sources contradict each other with certainty. A source at 0 is a veto unless another is at 1. Deng
    et al., 2025, arXiv 2502.14560, eq. 3 (DM-MUL); DM-ADD is the sum of the raw margins.
    """
    together = torch.stack(probabilities)
    right, wrong = together.prod(0), (1 - together).prod(0)
    certain = right + wrong > 0
    return torch.where(certain, right / torch.where(certain, right + wrong, 1), 0.5)


Region = Literal["signed_top", "abs_top", "middle", "bottom"]


def region(gap: Scores, count: int, which: Region = "abs_top") -> list[int]:
    """The examples with the clearest gaps in size (``abs_top``) or in the chosen response's favour
    (``signed_top``), the least clear (``middle``), or those clearest against it (``bottom``).

    Diwan et al., 2025, arXiv 2501.15109, take the gap log π_ref(y_w) − log π_ref(y_l); which statistic and
    side they use is not certain. A mean per token is not dominated by length, as a sum is.
    """
    by = {"signed_top": gap, "abs_top": gap.abs(), "middle": -gap.abs(), "bottom": -gap}
    return highest(by[which], count)


def to_regenerate(rewards: Sequence[float], share: float) -> tuple[list[int], list[int]]:
    """OPTune: the prompts with the lowest rewards get new responses, the others keep theirs; both in order.

    ``share`` of them are chosen, rounded. Rewards of different prompts compare only roughly. Chen et al.,
    2024, arXiv 2406.07657.

    Raises:
        PreferoError: ``share`` is outside 0 to 1, or a reward is not a number.
    """
    if not 0 <= share <= 1:
        raise PreferoError(f"share is {share}; expected 0 to 1.")
    count = round(share * len(known(rewards)))
    lowest = set(sorted(range(len(rewards)), key=lambda i: rewards[i])[:count])
    return sorted(lowest), [place for place in range(len(rewards)) if place not in lowest]


def replay_counts(offline: int, generated: int, share: float = 0.5) -> tuple[int, int]:
    """How many generated and how many offline pairs make a set with that ``share`` of offline ones.

    At most (1 − share) times the offline pairs are generated ones. Chen et al., 2024, arXiv 2406.09760.

    Raises:
        PreferoError: ``share`` is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise PreferoError(f"share is {share}; expected 0 to below 1.")
    # a product such as 1000 · (1 − 0.7) falls just short of the whole number that is meant
    fresh = min(math.floor(round(offline * (1 - share), 9)), generated)
    return fresh, math.floor(round(share * fresh / (1 - share), 9))


def nested_subsets(tags: Sequence[Hashable], shares: Sequence[float], *, seed: int = 0) -> list[list[int]]:
    """Subsets of the examples for a learning curve: each has its share of all, rounded, and holds the smaller
    ones; every tag (a source, a kind of prompt) has its own share in each, as far as whole examples go.
    Positions are in their order.

    Bernardelle and Demartini, 2024, Optimizing LLMs with direct preferences: a data efficiency perspective.

    Raises:
        PreferoError: a share is outside 0 to 1.
    """
    if bad := [share for share in shares if not 0 <= share <= 1]:
        raise PreferoError(f"a share is {bad[0]}; expected 0 to 1.")
    numbers, by_tag = random.Random(seed), dict[Hashable, list[int]]()
    for place, tag in enumerate(tags):
        by_tag.setdefault(tag, []).append(place)
    order: list[tuple[float, float, int]] = []
    for places in by_tag.values():
        numbers.shuffle(places)
        # the i-th of n comes where the whole has reached the share (i + ½)/n, as seats by Sainte-Laguë's rule
        order += [((i + 0.5) / len(places), numbers.random(), place) for i, place in enumerate(places)]
    ordered = [place for _, _, place in sorted(order)]
    return [sorted(ordered[: round(share * len(ordered))]) for share in shares]


def representative(
    similarity: Float[Tensor, "response response"],
    chosen: Sequence[int],
    diversity: float = 1.0,
    *,
    count: int | None = None,
) -> float:
    """AEPO's objective: how alike the chosen are to all responses, less how alike they are to each other.

    Σ_{y ∈ Y} Σ_{y' ≠ y} u(y, y')/(k (N − 1)) − λ Σ_{y ≠ y' ∈ Y} u(y, y')/(k (k − 1)), the second 0 for k = 1.
    k is ``count``, how many there are to be in the end, as in the authors' code; by default as many as there
    are. Jinnai and Honda, 2024, arXiv 2405.13541.
    """
    others = similarity - similarity.diagonal().diag()
    count, total = count or len(chosen), len(similarity)
    quality = others[:, list(chosen)].sum() / max(total - 1, 1) / count
    if count == 1:
        return float(quality)
    alike = others[list(chosen)][:, list(chosen)].sum() / (count * (count - 1))
    return float(quality - diversity * alike)


def to_annotate(
    similarity: Float[Tensor, "response response"], count: int, diversity: float = 1.0
) -> list[int]:
    """The ``count`` responses to annotate, found one after the other by :func:`representative` of ``count``.

    Raises:
        PreferoError: there are fewer, or a similarity is not a number.
    """
    _check_similarities(similarity, count)
    chosen: list[int] = []
    for _ in range(count):
        left = [place for place in range(len(similarity)) if place not in chosen]
        value = {i: representative(similarity, [*chosen, i], diversity, count=count) for i in left}
        chosen.append(max(left, key=value.__getitem__))
    return chosen


def _check_similarities(similarity: Float[Tensor, "response response"], count: int) -> None:
    if not 0 <= count <= len(similarity):
        raise PreferoError(f"{count} of {len(similarity)} responses cannot be annotated.")
    if similarity.isnan().any():
        raise PreferoError("a similarity is not a number (NaN): leave out responses that have none.")


def to_annotate_exactly(
    similarity: Float[Tensor, "response response"], count: int, diversity: float = 1.0
) -> list[int]:
    """The best set of ``count`` responses among all; for few responses. Raises as :func:`to_annotate`."""
    _check_similarities(similarity, count)
    if not count:
        return []
    sets = [list(chosen) for chosen in itertools.combinations(range(len(similarity)), count)]
    return max(sets, key=lambda chosen: representative(similarity, chosen, diversity))


def nearly_equal(
    margins: Scores, delta: float, order: Literal["any", "right"] = "any"
) -> Bool[Tensor, " example"]:
    """Pairs whose two responses a model finds nearly equally likely: ComPO takes them for noisy.

    ``margins`` are log π_ref(y_w) − log π_ref(y_l), summed over tokens, ``delta`` is how much is near. The
    paper takes |margin| ≤ δ of the reference (``any``), the authors' code 0 < margin < δ of the model trained
    on the other pairs (``right``). Chen et al., 2025, arXiv 2505.05465.
    """
    return margins.abs() <= delta if order == "any" else (margins > 0) & (margins < delta)
