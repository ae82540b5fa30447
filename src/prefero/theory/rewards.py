"""Rewards from comparisons with a baseline or from features, and doubly robust values of policies."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.theory.games import reward_of_preference


class PreferenceToReward:
    """A reward function over a baseline, and how many comparisons it took (``comparisons``).

    ``beats`` compares a response with the baseline once: 1, 0, or a probability. ``candidates`` are the
    possible rewards; those whose squared errors add up to more than ``confidence`` are ruled out. Where all
    others agree within ``tolerance``, no comparison is made.
    """

    def __init__(
        self,
        beats: Callable[[int, int], float],
        candidates: Float[Tensor, "candidate response"],
        baseline: int,
        *,
        bound: float,
        repeats: int = 100,
        confidence: float = 1.0,
        tolerance: float = 0.1,
    ) -> None:
        self.beats, self.baseline, self.bound, self.repeats = beats, baseline, bound, repeats
        self.confidence, self.tolerance = confidence, tolerance
        self.relative = candidates - candidates[:, baseline, None]
        self.errors = torch.zeros(len(candidates), dtype=candidates.dtype)
        self.comparisons = 0

    @property
    def possible(self) -> Bool[Tensor, " candidate"]:
        """The candidates that nothing measured rules out."""
        return self.errors <= self.confidence

    def reward(self, response: int) -> float:
        """The reward of a response minus that of the baseline, in [−bound, bound].

        Raises:
            PreferoError: no candidate agrees with the comparisons: none is true, or ``repeats`` are too few.
        """
        known = self.relative[self.possible, response]
        if not len(known):
            raise PreferoError(
                f"no candidate reward is within {self.confidence:g} of the {self.comparisons} comparisons; "
                f"raise confidence or repeats, or widen the class"
            )
        if float(known.max() - known.min()) <= 2 * self.tolerance:
            return float((known.max() + known.min()) / 2)
        rate = sum(self.beats(response, self.baseline) for _ in range(self.repeats)) / self.repeats
        self.comparisons += self.repeats
        measured = reward_of_preference(torch.tensor(rate, dtype=self.relative.dtype), self.bound)
        self.errors += (self.relative[:, response] - measured).square()
        return float(measured)


def penalised_weights(
    differences: Float[Tensor, "pair feature"], *, lasso: float = 0.0, ridge: float = 0.0, steps: int = 3000
) -> Float[Tensor, " feature"]:
    """The w with the smallest mean of −log σ(w·d) + ``lasso`` ‖w‖₁ + ``ridge`` ‖w‖²/2, d the ``differences``
    φ_w − φ_l, by accelerated proximal steps; where there is no smallest, the last of ``steps``."""
    curvature = torch.linalg.matrix_norm(differences, 2).square() / (4 * len(differences)) + ridge
    rate = 1 / curvature
    here = ahead = differences.new_zeros(differences.shape[1])
    for step in range(steps):
        slope = ridge * ahead - torch.sigmoid(-differences @ ahead) @ differences / len(differences)
        following = F.softshrink(ahead - rate * slope, float(lasso * rate))
        moved = following - here
        ahead, here = following + step / (step + 3) * moved, following
        if float(moved.abs().max()) < 1e-12:
            break
    return here


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
    """½ E_{y∼π} [ĝ(y, y₁) + ĝ(y, y₂)] + ½ [π/π̂_ref(y₁) − π/π̂_ref(y₂)] (z − ĝ(y₁, y₂)) of every pair: the
    mean is right if either the reference or the preferences are."""
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
