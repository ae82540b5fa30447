"""How often a policy's response beats the reference's, estimated from preference pairs of one prompt with
finitely many responses (Xu et al., 2025, arXiv 2506.01183).

``policy`` and ``reference`` are probabilities, ``preference[i, j]`` the probability that i is preferred to j
(½ on the diagonal). Pairs are rows (y₁, y₂, z) of response numbers, drawn from the reference, and z = 1 where
y₁ won.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Probabilities = Float[Tensor, " response"]
Preferences = Float[Tensor, "response response"]
Pairs = Int[Tensor, "pair 3"]


def total_preference(
    policy: Probabilities, reference: Probabilities, preference: Preferences
) -> Float[Tensor, ""]:
    """E_{y∼π, y′∼π_ref} g(y, y′). With estimates for the reference and the preferences: the direct method."""
    return policy @ preference @ reference


def importance_values(
    policy: Probabilities, reference: Probabilities, pairs: Pairs
) -> Float[Tensor, " pair"]:
    """½ [π/π_ref(y₁) z + π/π_ref(y₂) (1 − z)] of every pair: its mean is right if ``reference`` is."""
    ratio, (first, second, won) = policy / reference, pairs.T
    return (ratio[first] * won + ratio[second] * (1 - won)) / 2


def doubly_robust_values(
    policy: Probabilities, reference: Probabilities, preference: Preferences, pairs: Pairs
) -> Float[Tensor, " pair"]:
    """½ E_{y∼π} [ĝ(y, y₁) + ĝ(y, y₂)] + ½ [π/π̂_ref(y₁) − π/π̂_ref(y₂)] (z − ĝ(y₁, y₂)) of every pair.

    The mean is right if either the reference or the preferences are.
    """
    ratio, (first, second, won) = policy / reference, pairs.T
    direct = policy @ preference
    surprise = won - preference[first, second]
    return (direct[first] + direct[second] + (ratio[first] - ratio[second]) * surprise) / 2


def doubly_robust_mean(
    policy: Probabilities,
    reference: Probabilities,
    preference: Preferences,
    *,
    true_reference: Probabilities,
    true_preference: Preferences,
) -> Float[Tensor, ""]:
    """What :func:`doubly_robust_values` are on average, over pairs and labels from the true models."""
    count = len(policy)
    numbers = torch.arange(count, device=policy.device)
    first, second = numbers.repeat_interleave(count), numbers.repeat(count)
    drawn = true_reference[first] * true_reference[second]
    won = true_preference[first, second]
    mean = torch.zeros_like(policy[0])
    for label, chance in ((1, won), (0, 1 - won)):
        pairs = torch.stack([first, second, torch.full_like(first, label)], 1)
        mean = mean + (drawn * chance) @ doubly_robust_values(policy, reference, preference, pairs)
    return mean
