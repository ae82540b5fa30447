"""The experiment on modes: which of two a policy with one settles on, or whether it covers both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.two_modes import TwoModes


@dataclass(frozen=True)
class Modes:
    """The world :mod:`prefero_lab.worlds.two_modes`, with ``groups`` of ``size`` actions in all, drawn from
    the reference. Models are log-probabilities.

    An arm is an ``objective`` that reads scored lists, or, with ``pairs``, comparisons of two of as many
    actions; training starts near the higher mode, or near the ``lower`` one. Measured, one number a prompt:
    ``reward``; ``deviation`` of the action; ``on the higher mode``, how likely it is within 1 of it; and KLs
    in nats to (``reverse kl``) and from (``forward kl``) π_ref e^{r/target} / Z.
    """

    prompts: int = 8
    groups: int = 128
    size: int = 8
    target: float = 0.25
    steps: int = 200
    learning_rate: float = 0.05

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> TwoModes:
        from prefero_lab.worlds.two_modes import TwoModes

        return TwoModes.drawn(self.prompts, seed)

    def start(self, made: TwoModes) -> Tensor:
        return made.beside(0).log_probabilities().detach()

    def train(self, made: TwoModes, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended

        bandit = made.bandit
        if settings.get("pairs"):
            rows = bandit.sampled_pairs(self.groups * self.size // 2, seed, bandit.reference)
        else:
            rows = bandit.scored_groups(self.groups, self.size, seed)
        batch = WholeBatch(from_config(settings["objective"]), rows, bandit.table)
        start = made.beside(int(settings.get("lower", False)))
        with one_thread():
            policy = descended(batch, start, self.steps, self.learning_rate, reference=made.reference)
        return Trained(policy.log_probabilities().detach())

    def measure(self, made: TwoModes, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.optima import kl
        from prefero_lab.worlds.two_modes import actions

        grid, bandit = actions(), made.bandit
        policy = model.exp()
        mean = policy @ grid
        near = (grid - made.modes[:, :1]).abs() <= 1
        target = bandit.optimum(self.target)
        found = {
            "reward": bandit.values(policy, 0.0),
            "deviation": (policy @ grid**2 - mean**2).clamp(min=0).sqrt(),
            "on the higher mode": (policy * near).sum(-1),
            "reverse kl": kl(policy, target),
            "forward kl": (target * (target.log() - model)).sum(-1),
        }
        return {name: values.tolist() for name, values in found.items()}
