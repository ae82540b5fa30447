"""How sure an estimator is of a preference, from several passes with dropout: what to draw, how far to trust.

Wang et al., 2024, Self-evolutionary language models through uncertainty-enhanced preference optimization,
arXiv 2409.11212. Probabilities are those that the response with the higher score is the better one, one row
for each pass; entropies are in nats.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Passes = Float[Tensor, "pass pair"]
PerPair = Float[Tensor, " pair"]


def disagreement(probabilities: Passes) -> PerPair:
    """The mutual information of label and dropout mask (BALD): entropy of the mean less mean entropy.

    0 where all passes say the same, log 2 where they are certain of opposites.
    """
    return binary_entropy(probabilities.mean(0)) - binary_entropy(probabilities).mean(0)


def binary_entropy(probability: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Of a coin, in nats: 0 to log 2."""
    return torch.special.entr(probability) + torch.special.entr(1 - probability)


def majority_agrees(probabilities: Passes) -> Bool[Tensor, " pair"]:
    """Whether more than half of the passes prefer the response with the higher score."""
    return (probabilities > 0.5).sum(0) * 2 > len(probabilities)


def sampling_probability(disagreement: PerPair) -> PerPair:
    """How likely a pair is drawn for training: proportional to 1 − its disagreement; they add up to 1."""
    certainty = 1 - disagreement
    return certainty / certainty.sum()


def flip_rate(
    disagreement: PerPair, mode: Literal["none", "unnormalised", "literal"] = "none", mu: float = 4.0
) -> PerPair:
    """α of the loss :func:`~prefero.objectives.presets.iterative.upo`: how likely the label is wrong.

    ``none`` is 0, which is what the released code trains with. ``unnormalised`` is 1/(μ (1 − B) + 1), with μ
    of 4 or more. ``literal`` is the printed 1/(P + 1) with P the sampling probability, which is never below ½
    and near 1 for many pairs: it would learn the opposite preference, and is there for comparison only.
    """
    if mode == "none":
        return torch.zeros_like(disagreement)
    if mode == "literal":
        return 1 / (sampling_probability(disagreement) + 1)
    return 1 / (mu * (1 - disagreement) + 1)
