"""The experiment on tables: a policy trained on all pairs in expectation, or on samples, beside the closed
form that it should reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class TabularExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on the world :mod:`prefero_lab.worlds.bandit`.

    An arm is ``{"optimum": strength}``, the closed form itself; or settings of
    :func:`prefero_lab.papers.training.trained`, on all pairs with their weights, or with ``"pairs"`` on so
    many sampled comparisons. ``optimum`` says whose it is: that of a reward under KL (DPO), or of the
    preferences themselves (IPO); ``strengths`` are values of β or τ.

    Measured, one number a prompt: ``distance b``, the total variation to the optimum of strength b, and for
    a reward ``value b``, E[r] − b KL(π ‖ π_ref).
    """

    optimum: Literal["reward", "identity"]
    strengths: tuple[float, ...]
    prompts: int = 6
    responses: int = 5
    steps: int = 250

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        from prefero_lab.worlds.bandit import Bandit

        make = Bandit.bradley_terry if self.optimum == "reward" else Bandit.game
        return make(self.prompts, self.responses, seed=seed)

    def start(self, made: Bandit) -> TabularPolicy:
        return made.policy()

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[Any]:
        from prefero.models.tabular.policy import TabularPolicy
        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained
        from prefero_lab.worlds.bandit import counted

        if "optimum" in settings:
            return Trained(TabularPolicy.of(made.table, self._optimum(made, settings["optimum"])))
        own = {name: value for name, value in settings.items() if name != "pairs"}
        count = settings.get("pairs")
        rows = made.expected_pairs() if count is None else counted(made.sampled_pairs(count, seed))
        budget = {
            "max_steps": self.steps,
            "examples_per_step": len(rows),
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
        }
        return trained(made.policy(), rows, own, seed=seed, **budget)

    def measure(self, made: Bandit, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        policy, found = model.probabilities().detach(), {}
        for strength in self.strengths:
            apart = policy - self._optimum(made, strength)
            found[f"distance {strength:g}"] = (apart.abs().sum(-1) / 2).tolist()
            if self.optimum == "reward":
                found[f"value {strength:g}"] = made.values(policy, strength).tolist()
        return found

    def _optimum(self, made: Bandit, strength: float) -> Tensor:
        return made.optimum(strength) if self.optimum == "reward" else made.identity_optimum(strength)
