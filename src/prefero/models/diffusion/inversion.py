"""Noisy states by inversion: the noise that a sampler would have needed to make an image.

In the place of forward noise it gives every image a target of its own (InPO, SmPO).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion.process import over
from prefero.models.diffusion.sampling import moved
from prefero.models.diffusion.scoring import DiffusionAdapter, Images, NoisyStates, denoise, rows_of


def invert(
    data: Float[Tensor, "row *element"],
    alpha_bars: Float[Tensor, "step row"],
    noise: Callable[[Tensor, int], Tensor],
    *,
    refine: bool = False,
) -> Float[Tensor, "row *element"]:
    """From the data up to the last noise level, by DDIM steps turned around.

    ``noise(state, i)`` is what is predicted of a state at step i's time, whether the state is there already
    or still one step below. ``refine`` asks again at the state that the step reached and redoes it with the
    mean of both answers: ReNoise (Garibi et al., 2024, arXiv 2403.14602) as SmPO has it (Lu et al., 2025,
    arXiv 2506.02698).
    """
    state, level = data, torch.ones_like(alpha_bars[0])
    for step, to in enumerate(alpha_bars):
        said = noise(state, step)
        reached = moved(state, said, level, to)
        if refine:
            reached = moved(state, (said + noise(reached, step)) / 2, level, to)
        state, level = reached, to
    return state


def implied_noise(
    state: Float[Tensor, "row *element"],
    data: Float[Tensor, "row *element"],
    alpha_bar: Float[Tensor, " row"],
) -> Float[Tensor, "row *element"]:
    """τ = (x_t − √ᾱ x₀) / √(1 − ᾱ): the noise that takes the data to the state."""
    level = over(alpha_bar, state)
    return (state - level.sqrt() * data) / (1 - level).sqrt()


@torch.no_grad()
def inverted(
    adapter: DiffusionAdapter,
    model: Callable[..., Any],
    images: Images,
    index: Int[Tensor, "example token"],
    *,
    steps: int = 10,
    refine: bool = False,
) -> NoisyStates:
    """The states that a model's inversion reaches at the given places of the schedule, exactly there, by as
    many steps for each; the same places for all responses of an example.

    Lu et al., 2025, arXiv 2503.18454 (InPO), invert with the current policy. Their released code stops at the
    last point of a coarse grid below the time step, and takes the state for one of the time step.

    Raises:
        PreferoError: for a flow.
    """
    process = adapter.process
    if process.prediction == "flow":
        raise PreferoError("inversion is for diffusions; a flow's states are drawn")
    places = index[:, None].expand(-1, images.values.shape[1], -1)
    data = images.values[:, :, None].expand(*places.shape, *images.values.shape[2:])
    there = images.present[:, :, None].expand(places.shape)
    rows, last = data[there], places[there]
    conditions = rows_of(images.conditions, there.nonzero()[:, 0])
    grid = torch.stack([last * step // steps for step in range(1, steps + 1)])

    def noise(state: Tensor, step: int) -> Tensor:
        said = denoise(model, state, process.times.to(last.device)[grid[step]], conditions)
        return process.noise_of(said, state, grid[step])

    reached = invert(rows, process.alpha_bar(grid), noise, refine=refine)
    implied = torch.zeros_like(data).masked_scatter(
        there.view(*there.shape, *[1] * (data.dim() - 3)).expand(data.shape),
        implied_noise(reached, rows, process.alpha_bar(last)),
    )
    return adapter.noisy(images, places, implied)
