"""Images as the latents that latent diffusion models see."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def latents(
    autoencoder: Any,
    pixels: Float[Tensor, "example response *element"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "example response *latent"]:
    """Pixels in [−1, 1] through a diffusers autoencoder, shifted and scaled as its denoiser expects.

    Each image's most likely latent, or one drawn, with a generator.
    """
    posterior = autoencoder.encode(pixels.flatten(0, 1)).latent_dist
    found = posterior.mode() if generator is None else posterior.sample(generator)
    shift = getattr(autoencoder.config, "shift_factor", None) or 0.0
    scaled = (found - shift) * autoencoder.config.scaling_factor
    return scaled.view(*pixels.shape[:2], *found.shape[1:])
