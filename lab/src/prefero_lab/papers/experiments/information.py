"""The experiment on whence responses come: chosen ones from the reference, rejected ones from another
distribution, and a policy that the two imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Targets:
    """A reference and a target for each prompt, and where rejected responses come from so that DPO reaches
    the target."""

    reference: Tensor
    target: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Information:
    """An :class:`~prefero_lab.papers.paper.Experiment` on tables with unlimited pairs: chosen responses from
    the reference, rejected ones from π_ref (π_ref/π*)^β / Z. Models are probabilities.

    An arm is ``{"target": True}``, π* itself; or an ``objective``, fitted to rounding, on other pairs if
    ``rejected`` names where their rejected responses come from: ``uniform``, or a ``power`` of its own for β.

    Measured, one number a prompt: ``divergence``, Jensen and Shannon's from the target, in nats, and
    ``chosen_log_ratio``, E log π/π_ref of chosen responses.
    """

    prompts: int = 8
    responses: int = 12
    beta: float = 0.7

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Targets:
        import torch

        from prefero.demo.text import stream
        from prefero.theory.distributions import optimal_rejected

        numbers = stream("differential information", seed)
        shape = 2, self.prompts, self.responses
        reference, target = torch.randn(shape, generator=numbers, dtype=torch.float64).softmax(-1)
        return Targets(reference, target, optimal_rejected(target, reference, self.beta))

    def start(self, made: Targets) -> Tensor:
        return made.reference

    def train(self, made: Targets, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero.theory.distributions import optimal_rejected
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.bandit import Bandit
        from prefero_lab.worlds.tabular_fitting import fitted

        if settings.get("target"):
            return Trained(made.target)
        rejected = made.rejected
        if settings.get("rejected") == "uniform":
            rejected = torch.full_like(rejected, 1 / self.responses)
        elif "power" in settings:
            rejected = optimal_rejected(made.target, made.reference, settings["power"])
        # of two responses, the chosen one is that which came from the reference
        drawn = made.reference[..., :, None] * rejected[..., None, :]
        bandit = Bandit(made.reference, drawn / (drawn + drawn.mT))
        often = drawn[~torch.eye(self.responses, dtype=torch.bool).expand_as(drawn)]
        weights = (often / often.mean()).tolist()
        pairs = zip(bandit.expected_pairs(), weights, strict=True)
        rows = [row | {"weight": weight} for row, weight in pairs]
        objective = from_config({**settings["objective"], "weight": "given"})
        with one_thread():
            policy = fitted(objective, rows, bandit.policy(), reference=bandit.policy())
        return Trained(policy.probabilities().detach())

    def measure(self, made: Targets, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.optima import divergence

        return {
            # half of what f-DPO calls by this name
            "divergence": (divergence(model, made.target, "jsd") / 2).tolist(),
            "chosen_log_ratio": (made.reference * (model / made.reference).log()).sum(-1).tolist(),
        }
