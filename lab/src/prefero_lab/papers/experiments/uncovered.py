"""The experiment on a table with a response that no comparison is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class Uncovered:
    """An :class:`~prefero_lab.papers.paper.Experiment` on a log-linear policy and a table.

    Features of all responses are drawn alike. The reward of all but the last response to each prompt is
    linear in them; the last, which the reference gives with probability ``rare``, is the worst by
    ``worse``, whatever its features, and in no pair. Training is on the expectation over all other pairs.

    Measured, one number a prompt: the expected ``reward``, and the probability of the ``uncovered`` response.
    """

    prompts: int = 48
    responses: int = 6
    features: int = 8
    scale: float = 1.5
    rare: float = 0.01
    worse: float = 1.0
    steps: int = 200

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        import torch

        from prefero.demo.text import stream
        from prefero_lab.worlds.bandit import Bandit

        numbers = stream("uncovered", "rewards", seed)
        weights = torch.randn(self.features, generator=numbers, dtype=torch.float64)
        reward = self._features(seed) @ (self.scale * weights / weights.norm())
        reward[:, -1] = reward[:, :-1].amin(-1) - self.worse
        logits = torch.randn(self.prompts, self.responses - 1, generator=numbers, dtype=torch.float64)
        rare = torch.full((self.prompts, 1), self.rare, dtype=torch.float64)
        return Bandit.of_reward(reward, torch.cat([(1 - self.rare) * logits.softmax(-1), rare], -1))

    def start(self, made: Bandit) -> TabularPolicy:
        return made.policy()

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[Any]:
        from prefero_lab.papers.training import trained

        covered = made.reference.clone()
        covered[:, -1] = 0
        rows = made.expected_pairs(covered / covered.sum(-1, keepdim=True))
        budget = {"max_steps": self.steps, "examples_per_step": len(rows), "max_grad_norm": 0.0}
        return trained(made.policy(self._features(seed)), rows, settings, seed=seed, **budget)

    def measure(self, made: Bandit, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        policy = model.probabilities().detach()
        assert made.reward is not None
        return {"reward": (policy * made.reward).sum(-1).tolist(), "uncovered": policy[:, -1].tolist()}

    def _features(self, seed: int) -> Any:
        import torch

        from prefero.demo.text import stream

        shape = (self.prompts, self.responses, self.features)
        return torch.randn(shape, generator=stream("uncovered", "features", seed), dtype=torch.float64)
