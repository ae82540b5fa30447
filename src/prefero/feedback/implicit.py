"""The policy as its own judge: implicit rewards, freed of length or of one round's bias.

An implicit reward is log π(y)/π_ref(y), summed over tokens; β does not change how it ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prefero.feedback.pairing import Pair, best_and_worst


def log_ratios(policy: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> list[float]:
    """The implicit reward of each response of a prompt, from the log-probabilities of its tokens under two
    models, or of one model under two contexts: with demonstrations and without, or with good ones and with
    bad ones (Song et al., 2024, arXiv 2402.09320). The response's tokens are the same in both.

    The best response by it: Zhang et al., 2024, arXiv 2404.01258, who take DPO's policy and its start.
    """
    return [math.fsum(ours) - math.fsum(theirs) for ours, theirs in zip(policy, reference, strict=True)]


@dataclass(frozen=True, slots=True)
class LengthPenalty:
    """A penalty per unit of length, the mean length gap that it leaves, and what was tried."""

    alpha: float
    gap: float
    tried: list[tuple[float, float]]


def debiased_pairs(
    scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[float]], alpha: float
) -> list[Pair]:
    """Best and worst of every prompt by score − α · length."""
    return [
        best_and_worst([score - alpha * length for score, length in zip(*prompt, strict=True)])
        for prompt in zip(scores, lengths, strict=True)
    ]


def mean_length_gap(pairs: Sequence[Pair], lengths: Sequence[Sequence[float]]) -> float:
    """How much longer the better responses are than the worse, on average over the prompts."""
    gaps = [own[better] - own[worse] for (better, worse), own in zip(pairs, lengths, strict=True)]
    return sum(gaps) / len(gaps)


def length_penalty(
    scores: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[float]],
    alphas: Sequence[float],
    *,
    stop_early: bool = True,
) -> LengthPenalty:
    """DICE's α, with which best and worst are of the same length on average.

    ``alphas`` are tried in their order, and the first with the smallest absolute gap is taken.
    ``stop_early`` gives up at the first that widens it, as the released code does, which may miss the best.
    Lengths are characters there. Chen et al., 2024, arXiv 2406.09760.
    """
    tried: list[tuple[float, float]] = []
    for alpha in alphas:
        gap = mean_length_gap(debiased_pairs(scores, lengths, alpha), lengths)
        widened = bool(tried) and abs(gap) > abs(tried[-1][1])
        tried.append((alpha, gap))
        if stop_early and widened:
            break
    alpha, gap = min(tried, key=lambda one: abs(one[1]))
    return LengthPenalty(alpha, gap, tried)


def ensembled(
    current: Float[Tensor, " response"], previous: Float[Tensor, " response"], share: float = 0.3
) -> Float[Tensor, " response"]:
    """SeRA's reward: the current policy's implicit reward, ``share`` of it replaced by the previous round's,
    which damps what one round got wrong. Ko et al., 2024, arXiv 2410.09362 (the share is from memory)."""
    return (1 - share) * current + share * previous
