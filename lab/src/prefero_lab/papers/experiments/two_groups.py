"""The experiment on two groups of prompts: where the reference is right already, and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class TwoGroups:
    """A :class:`~prefero_lab.worlds.bandit.Bandit` with all comparisons in expectation. The policy that the
    preferences imply, π ∝ e^r, is the reference of the first half of its prompts; the other half's reference
    is the softmax of −r. Models are probabilities.

    An arm is ``{"right": True}``, the implied policy itself, or an ``objective``, brought to its smallest
    loss. Measured, total variations, one number a prompt: to the implied policy in the ``good group`` and in
    the ``bad group``, and in the latter ``from the reference`` and ``from the best response``.
    """

    prompts: int = 16
    responses: int = 4

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        import torch

        from prefero.demo.text import stream
        from prefero_lab.worlds.bandit import Bandit

        numbers = stream("two groups", seed)
        reward = torch.randn(self.prompts, self.responses, generator=numbers, dtype=torch.float64)
        sign = torch.where(torch.arange(self.prompts) < self.prompts // 2, 1.0, -1.0)
        return Bandit.of_reward(reward, (sign[:, None] * reward).softmax(-1))

    def start(self, made: Bandit) -> Tensor:
        return made.reference

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.tabular_fitting import fitted

        if settings.get("right"):
            return Trained(implied(made))
        # some methods are held to the reference on responses of its own; of a prompt, any one says which
        rows = [row | {"sample": row["chosen"]} for row in made.expected_pairs()]
        objective, start = from_config({**settings["objective"], "weight": "given"}), made.policy()
        with one_thread():
            policy = fitted(objective, rows, start, reference=start)
        return Trained(policy.probabilities().detach())

    def measure(self, made: Bandit, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        half = self.prompts // 2
        right = implied(made)
        best = torch.nn.functional.one_hot(right.argmax(-1), self.responses).to(right)

        def apart(other: Tensor) -> list[float]:
            return ((model - other).abs().sum(-1) / 2).tolist()

        return {
            "good group": apart(right)[:half],
            "bad group": apart(right)[half:],
            "from the reference": apart(made.reference)[half:],
            "from the best response": apart(best)[half:],
        }


def implied(made: Bandit) -> Tensor:
    """The policies whose own odds are the preferences'."""
    import torch

    from prefero.theory.distributions import bradley_terry_policy

    return torch.stack([bradley_terry_policy(wins) for wins in made.preference])
