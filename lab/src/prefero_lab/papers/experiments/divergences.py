"""The experiment on divergences: what methods that differ in their divergence gain, and what they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.theory.optima import Divergence
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit

KINDS: tuple[Divergence, ...] = ("reverse_kl", "alpha", "jsd", "forward_kl")


@dataclass(frozen=True)
class Divergences:
    """A :class:`~prefero_lab.worlds.bandit.Bandit` with all comparisons in expectation, and a method's
    smallest loss at each of the ``betas``. A model is their path, ``[beta, prompt, response]``, behind the
    reference.

    An arm is an ``objective``, or ``{"optimum": divergence}``, the largest E[r] − β D(π, π_ref). Measured,
    one number a prompt: at ``beta``, ``reward``, ``entropy`` and ``distance D``, the total variation to the
    optimum under D. ``reward for D``, where the mean of D is what ``spent`` says of it, is one number in all:
    methods spend alike on all prompts together, not on each.
    """

    prompts: int = 16
    responses: int = 6
    beta: float = 0.3
    betas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
    spent: tuple[float, ...] = (0.5, 0.5, 0.25, 0.5)

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        from prefero_lab.worlds.bandit import Bandit

        return Bandit.bradley_terry(self.prompts, self.responses, seed=seed)

    def start(self, made: Bandit) -> Tensor:
        return made.reference.expand(1 + len(self.betas), -1, -1)

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.tabular_fitting import fitted

        rows, start = made.expected_pairs(), made.policy()

        def learnt(beta: float) -> Tensor:
            if "optimum" in settings:
                return optimum(made, settings["optimum"], beta)
            objective = from_config({**settings["objective"], "beta": beta, "weight": "given"})
            return fitted(objective, rows, start, reference=start).probabilities().detach()

        with one_thread():
            return Trained(torch.stack([made.reference, *map(learnt, self.betas)]))

    def measure(self, made: Bandit, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        from prefero.theory.optima import divergence
        from prefero_lab.papers.experiments.frontiers import between

        assert made.reward is not None
        rewards = (model * made.reward).sum(-1)
        at = 1 + self.betas.index(self.beta)
        found = {
            "reward": rewards[at].tolist(),
            "entropy": (-torch.special.xlogy(model[at], model[at]).sum(-1)).tolist(),
        }
        for kind, most in zip(KINDS, self.spent, strict=True):
            apart = (model[at] - optimum(made, kind, self.beta)).abs().sum(-1) / 2
            spent = divergence(model, made.reference, kind).mean(-1)
            found[f"distance {kind}"] = apart.tolist()
            found[f"reward for {kind}"] = [float(between(spent, rewards, most).mean())]
        return found


def optimum(made: Bandit, kind: Divergence, beta: float) -> Tensor:
    import torch

    from prefero.theory.optima import divergence_optimum

    assert made.reward is not None
    each = zip(made.reference, made.reward, strict=True)
    return torch.stack([divergence_optimum(reference, reward, beta, kind) for reference, reward in each])
