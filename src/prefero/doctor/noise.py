"""How many labels are wrong, as far as the data alone can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prefero.evaluate.intervals import Interval, wilson

CHI_SQUARE = 3.841458820694124
"""The 95 % quantile of χ² with one degree of freedom."""

RATES = np.arange(0, 0.5, 0.0025)


@dataclass(frozen=True, slots=True)
class FlipRate:
    """The probability that a label is flipped, and its interval."""

    value: float
    interval: Interval


def flip_rate(leads: Float[np.ndarray, " pair"], independent: int | None = None) -> FlipRate:
    """From the leads that a predictor gives the chosen over the rejected responses of pairs that it was not
    made of.

    However sure the predictor is, a share ε of labels flipped at random contradicts it: P(chosen first) = ε +
    (1 − 2ε) σ(a · lead). ε and the predictor's scale a > 0 are fitted together by maximum likelihood, the
    interval is that of the profile likelihood. A predictor that is sure of nothing tells nothing: its
    interval is wide. One that is surely wrong on some kinds of pairs counts them as flipped. The model of
    flips is that of Ray Chowdhury et al., 2024, arXiv 2403.00409. Where pairs share prompts, ``independent``
    is the number of prompts, and the interval as wide as if there were one pair to each.
    """
    scale = float(np.sqrt(np.mean(leads * leads)))
    if scale == 0:
        return FlipRate(0.0, Interval(0.0, 0.5))
    profile = np.asarray([_best(leads / scale, rate) for rate in RATES])
    weight = (independent or len(leads)) / len(leads)
    likely = RATES[2 * weight * (profile.max() - profile) <= CHI_SQUARE]
    step = float(RATES[1])
    # Both ends lie between two rates that were tried.
    low, high = max(0.0, float(likely[0]) - step), min(0.5, float(likely[-1]) + step)
    return FlipRate(float(RATES[int(profile.argmax())]), Interval(low, high))


STEEPNESS = np.linspace(math.log(0.02), math.log(60), 25)


def _best(leads: Float[np.ndarray, " pair"], rate: float) -> float:
    """The log-likelihood at the best scale."""

    def likelihood(log_scale: float) -> float:
        chance = 1 / (1 + np.exp(-np.clip(math.exp(log_scale) * leads, -500, 500)))
        return float(np.log(np.clip(rate + (1 - 2 * rate) * chance, 1e-300, 1)).sum())

    tried = [likelihood(point) for point in STEEPNESS]
    at = int(np.argmax(tried))
    low, high = STEEPNESS[max(at - 1, 0)], STEEPNESS[min(at + 1, len(STEEPNESS) - 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(12):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (left, high) if likelihood(left) < likelihood(right) else (low, right)
    return max(max(tried), likelihood((low + high) / 2))


def of_disagreement(rate: float, count: int) -> FlipRate:
    """From how often two judgements of the same comparison differ: each is flipped with probability ε, so
    they differ with 2ε(1 − ε). ``count`` comparisons were judged repeatedly.
    """
    ends = wilson(rate, count)
    return FlipRate(_of(rate), Interval(_of(ends.low), _of(ends.high)))


def _of(disagreement: float) -> float:
    return (1 - math.sqrt(max(0.0, 1 - 2 * disagreement))) / 2


def of_majority(rate: float, judges: int) -> float:
    """The probability that most of ``judges`` are wrong, each with probability ``rate``; half of a draw."""
    wrong = [
        math.comb(judges, k) * rate**k * (1 - rate) ** (judges - k) * (1 if 2 * k > judges else 0.5)
        for k in range(judges + 1)
        if 2 * k >= judges
    ]
    return sum(wrong)
