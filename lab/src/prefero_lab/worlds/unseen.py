"""World ``unseen``: a small network that answers with one of ten responses, two of which no preference ever
mentions, so that it is seen where probability goes.

To each prompt one response is preferred to another; chosen and rejected ones are others at each prompt. The
network shares what it learns among prompts, as language models do and tables do not. After the toy model of
Yan et al., 2024, arXiv 2406.07327.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prefero.demo.text import stream
from prefero.models.tabular.policy import TabularConfig, TabularOutput, TabularPolicy
from prefero.models.tabular.table import Table


class NetworkPolicy(TabularPolicy):
    """π(y|x) ∝ exp(o(x, y) + f(x, y)), where f is a network with one hidden layer that all prompts share.

    The offset o makes up for what the network is at the start, which is thus any distribution exactly.
    """

    def __init__(self, config: TabularConfig) -> None:
        super().__init__(config)
        del self.theta
        prompts, responses = self.offset.shape
        self.network = nn.Sequential(
            nn.Linear(prompts, config.hidden), nn.Tanh(), nn.Linear(config.hidden, responses)
        )

    @classmethod
    def drawn(
        cls,
        table: Table,
        probabilities: Float[Tensor, "prompt response"],
        hidden: int,
        numbers: torch.Generator,
    ) -> NetworkPolicy:
        """A network with weights from U(−1/√inputs, 1/√inputs) and these probabilities."""
        policy = cls(TabularConfig(table.prompts, table.responses, hidden=hidden)).double()
        with torch.no_grad():
            for layer in policy.network:
                if isinstance(layer, nn.Linear):
                    bound = layer.in_features**-0.5
                    layer.weight.uniform_(-bound, bound, generator=numbers)
                    layer.bias.uniform_(-bound, bound, generator=numbers)
            policy.offset.copy_(probabilities.log() - policy._answers(torch.arange(len(table.prompts))))
        return policy

    def forward(self, prompts: Int[Tensor, "*place"], **_: Any) -> TabularOutput:
        return TabularOutput(self.offset[prompts] + self._answers(prompts))

    def _answers(self, prompts: Int[Tensor, "*place"]) -> Float[Tensor, "*place response"]:
        return self.network(torch.eye(len(self.offset), dtype=self.offset.dtype)[prompts])


@dataclass(frozen=True)
class Unseen:
    """``chosen`` and ``rejected`` are the places of each prompt's pair, ``unseen`` those of the responses
    that are in no pair. ``gaps`` say how much better the chosen response is, between 0 and 1."""

    chosen: Int[Tensor, " prompt"]
    rejected: Int[Tensor, " prompt"]
    unseen: Int[Tensor, " response"]
    gaps: Float[Tensor, " prompt"]
    hidden: int
    seed: int

    @classmethod
    def drawn(cls, seed: int, *, prompts: int = 4, unseen: int = 2, hidden: int = 64) -> Unseen:
        """The role of each response, and evenly spread gaps, in random order."""
        numbers = stream("unseen", "roles", seed)
        places = torch.randperm(2 * prompts + unseen, generator=numbers)
        chosen, rejected, rest = places.split([prompts, prompts, unseen])
        order = torch.randperm(prompts, generator=numbers)
        gaps = torch.linspace(0.1, 1.0, prompts, dtype=torch.float64)[order]
        return cls(chosen, rejected, rest, gaps, hidden, seed)

    @cached_property
    def table(self) -> Table:
        prompts = range(1, len(self.chosen) + 1)
        responses = range(1, 2 * len(self.chosen) + len(self.unseen) + 1)
        answers = tuple(f"answer {number}" for number in responses)
        return Table(tuple(f"question {number}" for number in prompts), (answers,) * len(self.chosen))

    def probabilities(
        self, chosen: float, rejected: float, unseen: float, spread: float = 0.3
    ) -> Float[Tensor, "prompt response"]:
        """Distributions with about these probabilities of the chosen, the rejected and (in all) the unseen
        responses, which share what is left with those of other prompts' pairs; each logit is off by
        N(0, ``spread``²), the same for all probabilities that are asked for."""
        prompts, responses = len(self.chosen), len(self.table.responses[0])
        others = 2 * prompts - 2
        found = torch.full((prompts, responses), (1 - chosen - rejected - unseen) / others).double()
        found[:, self.unseen] = unseen / len(self.unseen)
        rows = torch.arange(prompts)
        found[rows, self.chosen], found[rows, self.rejected] = chosen, rejected
        noise = torch.randn(found.shape, generator=stream("unseen", "start", self.seed), dtype=found.dtype)
        return (found.log() + spread * noise).softmax(-1)

    def policy(self, probabilities: Float[Tensor, "prompt response"]) -> NetworkPolicy:
        """The network that starts there; its weights are the seed's."""
        return NetworkPolicy.drawn(
            self.table, probabilities, self.hidden, stream("unseen", "weights", self.seed)
        )

    def rows(self) -> list[dict[str, Any]]:
        """The pairs, with scores between 0 and 1."""
        table, found = self.table, []
        for prompt, (chosen, rejected, gap) in enumerate(
            zip(self.chosen, self.rejected, self.gaps, strict=True)
        ):
            found.append(
                {
                    "prompt": table.prompts[prompt],
                    "chosen": table.responses[prompt][chosen],
                    "rejected": table.responses[prompt][rejected],
                    "chosen_score": 0.5 + float(gap) / 2,
                    "rejected_score": 0.5 - float(gap) / 2,
                }
            )
        return found

    def mass(
        self, policy: Float[Tensor, "*step prompt response"]
    ) -> dict[str, Float[Tensor, "*step prompt"]]:
        """The probabilities of the chosen, the rejected, and all unseen responses."""
        rows = torch.arange(len(self.chosen))
        return {
            "chosen": policy[..., rows, self.chosen],
            "rejected": policy[..., rows, self.rejected],
            "unseen": policy[..., self.unseen].sum(-1),
        }
