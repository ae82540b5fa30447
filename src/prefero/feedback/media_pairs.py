"""Pairs of generated images and clips, and of prompts for them: which candidates meet, and how much each pair
counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from prefero.errors import PreferoError
from prefero.feedback.pairing import Pair, best_and_worst, known


def dominance(first: Sequence[float], second: Sequence[float]) -> int:
    """1 if the first is nowhere worse by its scores and somewhere better, −1 the other way round, else 0.

    With one score it is the sign of the difference. Undecided pairs of D3PO are ties (Yang et al., 2023,
    arXiv 2311.13231).
    """
    gaps = [a - b for a, b in zip(known(first), known(second), strict=True)]
    better, worse = any(gap > 0 for gap in gaps), any(gap < 0 for gap in gaps)
    return int(better) - int(worse)


def clear_pair(scores: Sequence[float], threshold: float = 0.3) -> tuple[Pair, float, bool]:
    """Best and worst candidate of one state, how much likelier the best is to be preferred, and whether that
    is more than the threshold.

    p − (1 − p) = tanh(δ/2) for scores δ apart. Liang et al., 2024, arXiv 2406.04314 (SPO): thresholds are
    0.3 for Stable Diffusion 1.5, 0.4 for XL.
    """
    best, worst = best_and_worst(scores)
    gap = math.tanh((scores[best] - scores[worst]) / 2)
    return (best, worst), gap, gap > threshold


def edited_pair(original: float, edited: float, margin: float = 0.0) -> str:
    """Which of an image and its edit is the better by more than a margin: ``"original"``, ``"edited"``, or
    ``"drop"`` for neither.

    An edit is never taken for better than what it was made from. Zhao et al., 2025, arXiv 2503.11720 (rich
    preference optimization).
    """
    if abs(known([original, edited])[1] - original) <= margin:
        return "drop"
    return "edited" if edited > original else "original"


def prompt_pairs(
    candidates: Sequence[Mapping[str, float]],
    weights: Mapping[str, float],
    minimum: Mapping[str, float],
    *,
    margin: float = 1.4,
    top: int = 2,
) -> list[Pair]:
    """Pairs of rewritten prompts by several scores of what they generate.

    One of the ``top`` by the weighted sum is chosen if every score is above its minimum, and meets each
    lower-ranked candidate whose sum is lower by more than ``margin``. Ji et al., 2024, arXiv 2412.15156
    (Prompt-A-Video). The scores of how well a clip fits its prompt are about the user's own prompt.
    """
    overall = overall_scores(candidates, weights)
    order = ranked(overall)
    return [
        (chosen, rejected)
        for place, chosen in enumerate(order[:top])
        if all(candidates[chosen][name] > least for name, least in minimum.items())
        for rejected in order[place + 1 :]
        if overall[chosen] - overall[rejected] > margin
    ]


def overall_scores(candidates: Sequence[Mapping[str, float]], weights: Mapping[str, float]) -> list[float]:
    """The weighted sum of each candidate's scores.

    Raises:
        PreferoError: a candidate lacks a score.
    """
    for place, scores in enumerate(candidates):
        missing = [name for name in weights if name not in scores]
        if missing:
            raise PreferoError(f"candidate {place} has no score {missing[0]!r}; it has {', '.join(scores)}.")
    return [sum(weight * scores[name] for name, weight in weights.items()) for scores in candidates]


def ranked(scores: Sequence[float]) -> list[int]:
    """Places by score, the highest first, the earlier of equals before."""
    return sorted(range(len(known(scores))), key=lambda place: -scores[place])


def bin_shares(scores: Sequence[float], width: float) -> list[float]:
    """For every score the share of all scores in its bin [k · width, (k + 1) · width)."""
    if not width > 0:
        raise PreferoError(f"the width of bins is {width}; expected a positive number.")
    # a score of 0.15 is in the bin that starts there, though 0.15 / 0.05 is a little below 3
    bins = [math.floor(score / width + 1e-9) for score in scores]
    counts = Counter(bins)
    return [counts[one] / len(bins) for one in bins]


def rarity_weights(pairs: Sequence[tuple[float, float]], most: float, alpha: float = 0.72) -> list[float]:
    """(b / √(p_w p_l))^α for the shares of the chosen and the rejected scores, with b = ``most`` the largest
    share of all: 1 for pairs of the commonest scores, more for rare ones.

    Liu et al., 2024, arXiv 2412.14167 (VideoDPO). α = 0 weighs all alike; the released code has 0.72 in the
    place of b, and α from its configuration.
    """
    return [(most / pair_share(*pair)) ** alpha for pair in pairs]


def pair_share(chosen: float, rejected: float) -> float:
    """√(p_w p_l)."""
    return math.sqrt(chosen * rejected)
