"""Rewards out of comparisons with one fixed baseline, asked for only where they are not known yet.

Wang et al., 2023, arXiv 2306.14111 (P2R): any learner from rewards then learns from preferences, with few
more comparisons than its rewards have values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.theory.games import reward_of_preference


class PreferenceToReward:
    """A reward function over a baseline, and how many comparisons it took (``comparisons``).

    ``beats`` compares a response with the baseline once: 1, 0, or a probability. ``candidates`` is the class
    of rewards that are possible, one a row; those whose squared errors to what was measured add up to more
    than ``confidence`` are ruled out. Where all that remain agree within ``tolerance``, nobody is asked.
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
        """The reward of a response less that of the baseline, in [−bound, bound].

        Raises:
            PreferoError: no candidate agrees with what was measured: the class lacks the true reward, or
                ``confidence`` is too small for so few ``repeats``.
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
