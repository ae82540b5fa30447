"""The experiment on meaning: prompts and responses with embeddings, and annotators who like what is near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.objectives import PreferenceBatch
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Meanings:
    """Embeddings of length 1 of prompts and of the responses to each, and comparisons: a prompt, the response
    chosen, the one rejected; ``flipped`` tells which labels are wrong. ``gold`` is the embeddings' cosine."""

    prompts: Tensor
    responses: Tensor
    comparisons: Tensor
    flipped: Tensor

    @property
    def gold(self) -> Tensor:
        return (self.responses * self.prompts[:, None]).sum(-1)

    @property
    def features(self) -> Tensor:
        """Products of one number of a prompt's embedding and one of the response's: gold is their sum with
        the weights of a unit matrix."""
        both = self.prompts[:, None, :, None] * self.responses[:, :, None, :]
        return both.flatten(2)

    def log_policy(self, weights: Tensor) -> Tensor:
        return (self.features @ weights).log_softmax(-1)


@dataclass(frozen=True)
class EmbeddedExperiment:
    """Policies π ∝ exp(θ·φ(x, y)) that start uniform, on ``pairs`` comparisons of annotators who prefer by
    σ(scale · gap of gold); a share ``flips`` of the labels is then wrong. Half of the prompts is held out.

    Whoever reads states of the reference gets the embeddings. Arms have an ``objective`` and a
    ``learning_rate`` for the ``steps`` of Adam, on all comparisons at once. Measured, one number a held-out
    prompt: ``gold_reward``, the policy's mean; ``ranking``, the share of its pairs that log-ratios order
    right; ``kl`` to the start. ``fits_flipped``, one number a wrong label, is 1 where the policy obeys it.
    """

    prompts: int = 128
    answers: int = 6
    hidden: int = 6
    pairs: int = 600
    scale: float = 6.0
    flips: float = 0.3
    steps: int = 200

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Meanings:
        import torch
        import torch.nn.functional as F

        from prefero.demo.text import stream

        numbers = stream("embedded", seed)
        drawn = torch.randn(self.prompts, 1 + self.answers, self.hidden, generator=numbers)
        embedded = F.normalize(drawn.double(), dim=-1)
        made = Meanings(embedded[:, 0], embedded[:, 1:], torch.empty(0), torch.empty(0))
        which = torch.randint(self.prompts // 2, (self.pairs,), generator=numbers)
        sides = torch.stack([torch.randperm(self.answers, generator=numbers)[:2] for _ in range(self.pairs)])
        gaps = made.gold[which, sides[:, 0]] - made.gold[which, sides[:, 1]]
        first, wrong = torch.rand(2, self.pairs, generator=numbers, dtype=gaps.dtype)
        flipped = wrong < self.flips
        won = (first < torch.sigmoid(self.scale * gaps)) ^ flipped
        ordered = torch.where(won[:, None], sides, sides.flip(1))
        return Meanings(embedded[:, 0], embedded[:, 1:], torch.column_stack([which, ordered]), flipped)

    def start(self, made: Meanings) -> Tensor:
        import torch

        return torch.zeros(made.features.shape[-1], dtype=torch.float64)

    def train(self, made: Meanings, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread
        from prefero.objectives.configurations import from_config
        from prefero_lab.papers.paper import Trained

        objective = from_config(settings["objective"]).double()
        weights = self.start(made).requires_grad_()
        own = list(objective.parameters())
        optimizer = torch.optim.Adam([weights, *own], lr=settings["learning_rate"])
        curve = []
        with one_thread():
            for step in range(self.steps):
                optimizer.zero_grad()
                loss = objective.loss(compared(made, weights))
                loss.backward()
                optimizer.step()
                curve.append((float(step + 1), loss.item()))
        return Trained(weights.detach(), {"loss": curve[:: max(1, self.steps // 20)]})

    def measure(self, made: Meanings, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        import math

        import torch

        half = self.prompts // 2
        logps, gold = made.log_policy(model), made.gold
        above = torch.triu_indices(self.answers, self.answers, 1)
        ours, theirs = (of[half:, above[0]] - of[half:, above[1]] for of in (logps, gold))
        right = (ours * theirs > 0).double() + 0.5 * (ours == 0).double()
        which, chosen, rejected = made.comparisons[made.flipped].T
        fitted = logps[which, chosen] - logps[which, rejected]
        policy = logps.exp()
        return {
            "gold_reward": (policy * gold).sum(-1)[half:].tolist(),
            "ranking": right.mean(-1).tolist(),
            "kl": ((policy * logps).sum(-1)[half:] + math.log(self.answers)).tolist(),
            "fits_flipped": ((fitted > 0).double() + 0.5 * (fitted == 0).double()).tolist(),
        }


def compared(made: Meanings, weights: Tensor) -> PreferenceBatch:
    """The comparisons as objectives read them; embeddings stand for the reference's states."""
    import torch

    from prefero.objectives import PreferenceBatch, TokenLogps
    from prefero.objectives.signals import PROMPT_STATE, STATE

    which, sides = made.comparisons[:, 0], made.comparisons[:, 1:]
    there = torch.ones(*sides.shape, 1, dtype=torch.bool)
    states = {
        STATE: made.responses[which[:, None], sides],
        PROMPT_STATE: made.prompts[which][:, None].expand(-1, 2, -1),
    }

    def scored(own: Tensor) -> TokenLogps:
        return TokenLogps(made.log_policy(own)[which[:, None], sides][..., None], there, states)

    return PreferenceBatch(
        {"policy": scored(weights), "reference": scored(torch.zeros_like(weights).detach())}
    )
