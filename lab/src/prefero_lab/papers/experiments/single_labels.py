"""The experiment on single labels: responses that are accepted or rejected, each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class SingleLabels:
    """A :class:`~prefero_lab.worlds.bandit.Bandit`, with ``labels`` responses of the
    reference, accepted where their reward exceeds the reference's mean for the prompt, rejected otherwise.

    An arm is PMPO's ``alpha`` and ``beta``; with an α of 1 it sees the accepted responses alone, with one of
    0 the rejected ones. Measured, one number a prompt: ``reward``; ``kl``, KL(π ‖ π_ref) in nats;
    ``coverage``, KL(π_ref ‖ π), which is 0 where nothing is left out; and ``entropy``.
    """

    prompts: int = 8
    responses: int = 16
    labels: int = 256
    steps: int = 300
    learning_rate: float = 0.1

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        from prefero_lab.worlds.bandit import Bandit

        return Bandit.bradley_terry(self.prompts, self.responses, seed=seed)

    def start(self, made: Bandit) -> TabularPolicy:
        return made.policy()

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[TabularPolicy]:
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended

        start = self.start(made)
        mean = made.values(made.reference, 0.0).tolist()
        rows = [
            {"prompt": one["prompt"], "completion": one["responses"][0], "label": one["scores"][0] > mean[at]}
            for one in made.scored_groups(self.labels, 1, seed)
            for at in [made.table.prompts.index(one["prompt"])]
        ]
        alone = {1.0: [True], 0.0: [False]}.get(settings["alpha"], [True, False])
        rows = [row for row in rows if row["label"] in alone]
        batch = WholeBatch(from_config({"method": "pmpo", **settings}), rows, made.table)
        with one_thread():
            return Trained(descended(batch, start, self.steps, self.learning_rate, reference=start))

    def measure(self, made: Bandit, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        from prefero.theory.optima import kl

        policy = model.probabilities().detach()
        return {
            "reward": made.values(policy, 0.0).tolist(),
            "kl": kl(policy, made.reference).tolist(),
            "coverage": kl(made.reference, policy).tolist(),
            "entropy": (-torch.special.xlogy(policy, policy).sum(-1)).tolist(),
        }
