"""Differentiable rewards sent back through the sampler: DRaFT, a baseline that needs no preferences.

Clark et al., 2023, arXiv 2309.17400. It is no objective on log-probabilities: what is maximised is the reward
of images that the policy samples with a graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.models.diffusion.sampling import moved, predicted_data

Noise = Callable[[Tensor, int], Tensor]
"""What is predicted of a state at a place of the levels."""


def sampled(
    start: Float[Tensor, "row *element"],
    alpha_bars: Float[Tensor, " level"],
    noise: Noise,
    *,
    last: int | None = None,
) -> Float[Tensor, "row *element"]:
    """Data by DDIM without noise, from the last of the levels (the noisiest) to the first and on to the data.

    Gradients come from the ``last`` steps alone, of all if None: DRaFT-K. The steps before leave no graph,
    so memory grows with K and not with the number of levels.
    """
    state, kept = start, len(alpha_bars) if last is None else last
    for place in reversed(range(len(alpha_bars))):
        with torch.set_grad_enabled(torch.is_grad_enabled() and place < kept):
            level = alpha_bars[place].expand(len(state))
            to = alpha_bars[place - 1].expand(len(state)) if place else torch.ones_like(level)
            state = moved(state, noise(state, place), level, to)
    return state


def renoised(
    data: Float[Tensor, "row *element"],
    alpha_bars: Float[Tensor, " level"],
    noise: Noise,
    drawn: Float[Tensor, "row *element"],
) -> Float[Tensor, "row *element"]:
    """Data that got a little noise again and lost it in one step: DRaFT-LV adds the rewards of several to
    that of DRaFT-1, for a gradient of less variance. The data themselves get no gradient."""
    level = alpha_bars[0].expand(len(data))
    state = moved(data.detach(), drawn, torch.ones_like(level), level)
    return predicted_data(state, noise(state, 0), level)
