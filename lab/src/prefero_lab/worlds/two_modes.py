"""World ``two_modes``: rewards with two modes, and policies that have one.

Actions lie on a line, the reward is a sum of two bumps, one higher than the other, and a policy is a Gaussian
on the actions, which can sit on one of them or spread over both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prefero.demo.text import stream
from prefero.models.tabular.policy import TabularOutput
from prefero_lab.worlds.bandit import Bandit

LOW, HIGH, ACTIONS = -4.0, 4.0, 41
HEIGHTS, WIDTH = (4.0, 3.0), 0.5
"""Heights and width of the two bumps of the reward."""


def actions() -> Float[Tensor, " action"]:
    return torch.linspace(LOW, HIGH, ACTIONS, dtype=torch.float64)


class Gaussian(nn.Module):
    """π(a|x) ∝ exp(−(a − μ_x)² / 2σ_x²) on the actions; μ and log σ are learnt, one of each a prompt."""

    grid: Tensor

    def __init__(self, mean: Float[Tensor, " prompt"], deviation: Float[Tensor, " prompt"]) -> None:
        super().__init__()
        self.mean, self.log_deviation = nn.Parameter(mean.clone()), nn.Parameter(deviation.log())
        self.register_buffer("grid", actions())

    def forward(self, prompts: Int[Tensor, " place"]) -> TabularOutput:
        apart = (self.grid - self.mean[prompts, None]) / self.log_deviation[prompts, None].exp()
        return TabularOutput(-(apart**2) / 2)

    def log_probabilities(self) -> Float[Tensor, "prompt action"]:
        return self(torch.arange(len(self.mean))).logits.log_softmax(-1)


@dataclass(frozen=True)
class TwoModes:
    """Comparisons and scored actions are ``bandit``'s, whose references are broad Gaussians; ``modes`` are
    where each prompt has its higher bump and its lower one."""

    bandit: Bandit
    reference: Gaussian
    modes: Float[Tensor, "prompt 2"]

    @classmethod
    def drawn(cls, prompts: int, seed: int) -> TwoModes:
        """Bumps at 1 to 2 on the right and on the left."""
        numbers = stream("two modes", seed)
        modes = (1 + torch.rand(prompts, 2, generator=numbers, dtype=torch.float64)) * torch.tensor([1, -1])
        bumps = torch.exp(-(((actions() - modes[..., None]) / WIDTH) ** 2) / 2)
        reward = (torch.tensor(HEIGHTS)[:, None] * bumps).sum(1)
        reference = Gaussian(torch.zeros_like(modes[:, 0]), 2 * torch.ones_like(modes[:, 0]))
        return cls(Bandit.of_reward(reward, reference.log_probabilities().exp().detach()), reference, modes)

    def beside(self, mode: int) -> Gaussian:
        """Narrow policies that start near the higher (0) or the lower (1) mode."""
        inwards = torch.tensor([-0.25, 0.25])[mode]
        return Gaussian(self.modes[:, mode] + inwards, 0.5 * torch.ones_like(self.modes[:, 0]))
