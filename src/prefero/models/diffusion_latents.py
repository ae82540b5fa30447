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


@torch.no_grad()
def pixels(autoencoder: Any, found: Float[Tensor, "image *latent"]) -> Float[Tensor, "image *element"]:
    """Latents in the units of the denoiser back as pixels in [−1, 1]."""
    shift = getattr(autoencoder.config, "shift_factor", None) or 0.0
    own = next(autoencoder.parameters())
    return autoencoder.decode((found / autoencoder.config.scaling_factor + shift).to(own)).sample


def shrinks(autoencoder: Any) -> int:
    """How many pixels one latent stands for, along a side."""
    return 2 ** (len(autoencoder.config.block_out_channels) - 1)
