"""The experiment on frontiers: what a method gains in reward for a divergence, its strength swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class Made:
    """A bandit, and the features of its policies, None where they are free."""

    bandit: Bandit
    features: Tensor | None


@dataclass(frozen=True)
class Frontiers:
    """A :class:`~prefero_lab.worlds.bandit.Bandit` whose scored responses are drawn from the reference, and a
    method at each of some strengths. With ``features``, policies are log-linear in so many, and rewards
    linear in the same but for a ``residual`` that no policy knows of. A model is the path of the strengths,
    ``[strength, prompt, response]``.

    An arm is ``{"optimum": True}``, π_ref e^{r/β} / Z, at some ``betas``; or an ``objective`` besides, and
    the number of ``groups`` and their ``size``: so many random prompts, each with so many scored responses,
    which the method reads as ``lists`` or, the better-scored one chosen, as pairs. ``noise`` is the standard
    deviation of errors in the scores. In each of ``rounds`` a part of the groups is added, whose responses
    are drawn from what was learnt so far.

    Measured, one number a prompt: ``reward at k``, the gold reward where the mean KL to the reference is k
    nats, by the path's points on both sides of it; and ``furthest``, the path's largest mean KL.
    """

    prompts: int = 8
    responses: int = 8
    features: int | None = None
    residual: float = 0.0
    divergences: tuple[float, ...] = (0.25, 0.5)
    steps: int = 100
    learning_rate: float = 0.1

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        import torch

        from prefero.demo.text import stream
        from prefero_lab.worlds.bandit import Bandit

        if self.features is None:
            return Made(Bandit.bradley_terry(self.prompts, self.responses, seed=seed), None)
        numbers, shape = stream("frontiers", seed), (self.prompts, self.responses)
        features = torch.randn(*shape, self.features, generator=numbers, dtype=torch.float64)
        weights = torch.randn(self.features, generator=numbers, dtype=torch.float64)
        logits, residual = torch.randn(2, *shape, generator=numbers, dtype=torch.float64)
        reward = features @ (weights / weights.norm()) + self.residual * residual
        return Made(Bandit.of_reward(reward, logits.softmax(-1)), features)

    def start(self, made: Made) -> Tensor:
        return made.bandit.reference[None]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread
        from prefero_lab.papers.paper import Trained

        learnt = (
            made.bandit.optimum if settings.get("optimum") else partial(self._learnt, made, settings, seed)
        )
        with one_thread():
            return Trained(torch.stack([made.bandit.reference, *map(learnt, settings["betas"])]))

    def _learnt(self, made: Made, settings: Mapping[str, Any], seed: int, beta: float) -> Tensor:
        from prefero.objectives import from_config
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended

        objective = from_config({**settings["objective"], "beta": beta})
        rounds = settings.get("rounds", 1)
        start = policy = made.bandit.policy(made.features)
        rows: list[dict[str, Any]] = []
        for part in range(rounds):
            rows += self._rows(made, settings, seed + 1000 * part, policy.probabilities().detach())
            batch = WholeBatch(objective, rows, made.bandit.table)
            policy = descended(batch, policy, self.steps // rounds, self.learning_rate, reference=start)
        return policy.probabilities().detach()

    def _rows(
        self, made: Made, settings: Mapping[str, Any], seed: int, sampling: Tensor
    ) -> list[dict[str, Any]]:
        import torch

        from prefero.demo.text import stream
        from prefero_lab.worlds.bandit import ordered_pairs

        count, size = settings["groups"] // settings.get("rounds", 1), settings["size"]
        groups = made.bandit.scored_groups(count, size, seed, sampling)
        errors = settings.get("noise", 0.0) * torch.randn(
            count, size, generator=stream("frontiers", "errors", seed)
        )
        for group, more in zip(groups, errors.tolist(), strict=True):
            group["scores"] = [score + error for score, error in zip(group["scores"], more, strict=True)]
        return groups if settings.get("lists") else ordered_pairs(groups)

    def measure(self, made: Made, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.optima import kl

        assert made.bandit.reward is not None
        rewards = (model * made.bandit.reward).sum(-1)
        spent = kl(model, made.bandit.reference).mean(-1)
        return {
            **{f"reward at {k:g}": between(spent, rewards, k).tolist() for k in self.divergences},
            "furthest": [float(spent.max())],
        }


def between(spent: Tensor, rewards: Tensor, divergence: float) -> Tensor:
    """The rewards ``[prompt]`` at a divergence, of points that ``spent`` so much ``[point]`` for ``rewards
    [point, prompt]``; NaN where no point goes that far.

    Linear in the divergence's root, as rewards are near the reference.
    """
    order = spent.argsort()
    roots, rewards = spent[order].clamp(min=0).sqrt(), rewards[order]
    above = int((spent < divergence).sum())
    if above == len(spent):
        return rewards[0] * float("nan")
    share = (divergence**0.5 - roots[above - 1]) / (roots[above] - roots[above - 1])
    return (1 - share) * rewards[above - 1] + share * rewards[above]
