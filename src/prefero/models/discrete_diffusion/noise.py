"""Noise of discrete diffusion: what stands where a token is gone, how often, and what jumps lead back.

A continuous-time Markov chain leads from noise (t = 0) to data (t = 1); κ(t) is the probability that a
position holds its token, and κ′(t) / (1 − κ(t)) the rate at which one that does not jumps to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """``kept`` is κ(t), the probability that a position holds its token, from 0 to 1; ``speed`` is κ′(t)."""

    kept: Callable[[Tensor], Tensor]
    speed: Callable[[Tensor], Tensor]

    def rate(self, time: Float[Tensor, "*where"]) -> Float[Tensor, "*where"]:
        """κ′ / (1 − κ), at which positions leave the noise."""
        return self.speed(time) / (1 - self.kept(time))


LINEAR = Schedule(lambda time: time, torch.ones_like)
COSINE = Schedule(
    lambda time: 1 - (time * math.pi / 2).cos(), lambda time: math.pi / 2 * (time * math.pi / 2).sin()
)


@dataclass(frozen=True, slots=True)
class Masking:
    """A token that is gone is the ``mask`` token, which is no token of the data. The total rate out of a
    state is the same for all models, and cancels: what is left is the log-probability of the tokens at masked
    positions."""

    mask: int

    def like(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Noise for every position of the tokens."""
        return torch.full_like(tokens, self.mask)

    def moves(self, states: Tensor) -> Tensor:
        """Which positions still can jump."""
        return states == self.mask

    def makes(self, tokens: Tensor) -> Tensor:
        """Which tokens the way from this noise can lead to."""
        return tokens != self.mask

    def logps(self, logits: Float[Tensor, "*where vocabulary"]) -> Float[Tensor, "*where token"]:
        """Log-probabilities of the tokens that data are made of."""
        no_token = logits.new_tensor(-math.inf)
        return logits.index_fill(-1, torch.tensor(self.mask, device=logits.device), no_token).log_softmax(-1)

    def explained(
        self,
        logps: Float[Tensor, "*where token"],
        tokens: Int[Tensor, "*where"],
        states: Int[Tensor, "*where"],
    ) -> Float[Tensor, "*where"]:
        """Σ_j [q(j) log R(j) − R(j)] of every position in units of its rate, but for a constant."""
        return torch.where(self.moves(states), _at(logps, tokens), 0)


@dataclass(frozen=True, slots=True)
class Uniform:
    """A token that is gone is any of the ``size`` tokens 0, 1, …, its own among them.

    A position that holds another token than its own jumps to that alone, which of the chains with these
    marginals is the one that jumps least (Campbell et al., 2024, arXiv 2402.04997). A model's total rate
    depends on the probability it gives the token that is there, so nothing cancels. The noise does not show
    in a state, so a model wants to be told the time.
    """

    size: int

    def like(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(self.size, tokens.shape, generator=generator, device=generator.device)
        return drawn.to(tokens.device)

    def moves(self, states: Tensor) -> Tensor:
        return torch.ones_like(states, dtype=torch.bool)

    def makes(self, tokens: Tensor) -> Tensor:
        return tokens < self.size

    def logps(self, logits: Tensor) -> Tensor:
        return logits[..., : self.size].log_softmax(-1)

    def explained(self, logps: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
        jump = torch.where(states == tokens, 0, _at(logps, tokens))
        return jump + _at(logps, states).exp() - 1


Noise = Masking | Uniform
"""What stands where a token is gone, and the jumps that a model's probabilities give; methods are described
at :class:`Masking`."""


def _at(logps: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of tokens; those beyond the data's tokens, at given positions, are not read."""
    return logps.gather(-1, tokens.clamp(max=logps.shape[-1] - 1)[..., None]).squeeze(-1)
