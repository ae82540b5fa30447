"""World ``log_linear``: responses are points in space, a taste is a direction in it, and policies
π ∝ π_ref exp(θ·φ) have to find it (:mod:`prefero.models.tabular.policy`).

A response's reward is its features times the taste, who wins is Bradley and Terry's draw, and labels can be
made worse by :class:`~prefero_lab.worlds.noisy.Flips`. People of several tastes are groups: each taste looks
at features of its own, so that all could be served at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.demo.text import stream
from prefero.models.tabular.policy import TabularPolicy
from prefero_lab.worlds.bandit import Bandit

Row = dict[str, Any]


@dataclass(frozen=True)
class LogLinear:
    """The first ``training`` prompts are what pairs are about; the others are held out.

    ``features`` have a variance of ½ each, so that those of two responses differ by standard normals, and
    ``tastes`` are directions, one a group. References are uniform.
    """

    features: Float[Tensor, "prompt response feature"]
    tastes: Float[Tensor, "group feature"]
    training: int
    name: str = "log-linear"

    @classmethod
    def drawn(
        cls,
        norms: Sequence[float] = (1.5,),
        *,
        features: int = 4,
        training: int = 512,
        held_out: int = 256,
        responses: int = 4,
        seed: int = 0,
    ) -> LogLinear:
        """A taste of each of these norms, in a random direction, on ``features`` features of its own."""
        shape = training + held_out, responses, features * len(norms)
        numbers = stream("log-linear", "features", seed)
        points = torch.randn(shape, generator=numbers, dtype=torch.float64) * 0.5**0.5
        tastes = torch.zeros(len(norms), shape[-1], dtype=torch.float64)
        numbers = stream("log-linear", "tastes", seed)
        for group, norm in enumerate(norms):
            direction = torch.randn(features, generator=numbers, dtype=torch.float64)
            own = slice(group * features, (group + 1) * features)
            tastes[group, own] = norm * direction / direction.norm()
        return cls(points, tastes, training)

    @cached_property
    def bandits(self) -> tuple[Bandit, ...]:
        """Rewards and preferences of each group, of all prompts."""
        uniform = torch.full(self.features.shape[:2], 1 / self.features.shape[1], dtype=torch.float64)
        return tuple(Bandit.of_reward(self.features @ taste, uniform) for taste in self.tastes)

    def policy(self) -> TabularPolicy:
        """The uniform policy, in the class of log-linear ones."""
        return self.bandits[0].policy(self.features)

    def pairs(self, counts: Sequence[int], seed: int) -> list[Row]:
        """So many comparisons by people of each group, of two responses to a training prompt: with the
        ``group``, and its rewards as scores."""
        found = []
        for group, count in enumerate(counts):
            # every group has noise of its own
            rows = self.bandits[group].sampled_pairs(count, seed + 1_000_000 * group, self._of(training=True))
            found += [{**row, "group": group, **self._scores(row, group)} for row in rows]
        return found

    def expected_held_out(self, group: int) -> list[Row]:
        """All pairs of responses to the held-out prompts in both orders, with the weights that make a loss
        its expectation under the group's preferences."""
        return self.bandits[group].expected_pairs(self._of(training=False))

    def held_out(self, group: int = 0) -> Bandit:
        """The held-out prompts alone."""
        whole = self.bandits[group]
        assert whole.reward is not None
        parts = (part[self.training :] for part in (whole.reference, whole.preference, whole.reward))
        return replace(whole, **dict(zip(("reference", "preference", "reward"), parts, strict=True)))

    def _of(self, *, training: bool) -> Float[Tensor, "prompt response"]:
        """Weights of responses in comparisons: 1 on one side of the split, 0 on the other."""
        there = torch.zeros(self.features.shape[:2], dtype=torch.float64)
        there[slice(None, self.training) if training else slice(self.training, None)] = 1
        return there

    def _scores(self, row: Row, group: int) -> dict[str, float]:
        bandit = self.bandits[group]
        assert bandit.reward is not None
        prompt = bandit.table.prompt(row["prompt"], "a pair")
        rewards = dict(zip(bandit.table.responses[prompt], bandit.reward[prompt].tolist(), strict=True))
        return {f"{side}_score": rewards[row[side]] for side in ("chosen", "rejected")}
