"""Images by a denoiser and its scheduler, without a pipeline."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from prefero.models.diffusion import Denoiser, denoise


@torch.no_grad()
def drawn(
    model: Denoiser,
    scheduler: Any,
    noise: Float[Tensor, "row *element"],
    conditions: Mapping[str, Any],
    *,
    steps: int = 20,
    clip: bool = False,
) -> Float[Tensor, "row *element"]:
    """From noise to data in a few steps without randomness: DDIM for diffusions (Song et al., 2020, arXiv
    2010.02502), Euler's for flows.

    ``scheduler`` is the one that the model was trained with; it stays as it is. ``clip`` holds what the data
    are thought to be within [−1, 1], for models of pixels.
    """
    kind = type(scheduler)
    if hasattr(scheduler, "scale_noise"):
        walk = kind.from_config(scheduler.config)
    else:
        walk = importlib.import_module("diffusers").DDIMScheduler.from_config(
            scheduler.config, timestep_spacing="trailing", clip_sample=clip, thresholding=False
        )
    walk.set_timesteps(steps)
    state = noise
    for time in walk.timesteps:
        said = denoise(model, state, time.expand(len(state)).to(state.device), conditions)
        state = walk.step(said, time, state).prev_sample
    return state.clamp(-1, 1) if clip else state


def as_image(values: Float[Tensor, "channel height width"]) -> Image.Image:
    """Numbers from −1 to 1 as an image of one or three channels."""
    array = ((values.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.squeeze(array, 2) if array.shape[2] == 1 else array)
