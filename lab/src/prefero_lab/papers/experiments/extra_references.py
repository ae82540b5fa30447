"""The experiment on extra references: one that is better than where the policy starts, or worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class Made:
    """A bandit, whose reference is where policies start, and the features that they are log-linear in."""

    bandit: Bandit
    features: Tensor


@dataclass(frozen=True)
class ExtraReferences:
    """A :class:`~prefero_lab.worlds.bandit.Bandit` with rewards that are linear in ``features`` but for a
    ``residual``, and few noisy comparisons.

    An arm is an ``objective``, which finds the start under the name ``reference`` and, under the name
    ``reference_2``, the ``extra`` one: ``good``, π_ref e^{r/tilt} / Z, or ``bad``, π_ref e^{−r/tilt} / Z.
    Measured, one number a prompt: ``accuracy``, the share of all pairs of responses, nearly all of them
    unseen, that log π/π_ref puts in the order of their rewards; ``reward``; and ``kl``.
    """

    prompts: int = 16
    responses: int = 16
    features: int = 6
    residual: float = 0.5
    pairs: int = 40
    tilt: float = 1.0
    steps: int = 100
    learning_rate: float = 0.05

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        import torch

        from prefero.demo.text import stream
        from prefero_lab.worlds.bandit import Bandit

        numbers, shape = stream("extra references", seed), (self.prompts, self.responses)
        features = torch.randn(*shape, self.features, generator=numbers, dtype=torch.float64)
        weights = torch.randn(self.features, generator=numbers, dtype=torch.float64)
        logits, residual = torch.randn(2, *shape, generator=numbers, dtype=torch.float64)
        reward = features @ (weights / weights.norm()) + self.residual * residual
        return Made(Bandit.of_reward(reward, logits.softmax(-1)), features)

    def start(self, made: Made) -> TabularPolicy:
        return made.bandit.policy(made.features)

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[TabularPolicy]:
        from prefero.demo.start import one_thread
        from prefero.models.tabular.policy import TabularPolicy
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.bandit import counted
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended

        bandit, start = made.bandit, self.start(made)
        rows = counted(bandit.sampled_pairs(self.pairs, seed))
        batch = WholeBatch(from_config({**settings["objective"], "weight": "given"}), rows, bandit.table)
        others = {"reference": start}
        if "extra" in settings:
            sign = {"good": 1.0, "bad": -1.0}[settings["extra"]]
            tilted = bandit.optimum(sign * self.tilt)
            others[settings.get("as", "reference_2")] = TabularPolicy.of(bandit.table, tilted)
        with one_thread():
            return Trained(descended(batch, start, self.steps, self.learning_rate, **others))

    def measure(self, made: Made, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        from prefero.theory.optima import kl

        bandit, policy = made.bandit, model.probabilities().detach()
        assert bandit.reward is not None
        ratio = (policy / bandit.reference).log()
        first, second = torch.triu_indices(self.responses, self.responses, 1)
        gap, gold = (each[:, first] - each[:, second] for each in (ratio, bandit.reward))
        right = torch.where(gap.abs() < 1e-12, 0.5, (gap * gold > 0).to(gap))
        return {
            "accuracy": right.mean(-1).tolist(),
            "reward": bandit.values(policy, 0.0).tolist(),
            "kl": kl(policy, bandit.reference).tolist(),
        }
