"""Images drawn for a report: by a denoiser and its scheduler alone, or by its pipeline."""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from prefero.models.diffusion.conditions import Scene, family_of
from prefero.models.diffusion.process import pixels, shrinks
from prefero.models.diffusion.scoring import Denoiser, denoise, mapped
from prefero.models.diffusion.source import bare, denoiser_of, library
from prefero.models.loading import evaluating


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
    2010.02502), Euler's for flows. ``scheduler`` is the one that the model was trained with; it stays as it
    is. ``clip`` holds the data within [−1, 1], for models of pixels."""
    kind = type(scheduler)
    if hasattr(scheduler, "scale_noise"):
        walk = kind.from_config(scheduler.config)
    else:
        walk = library().DDIMScheduler.from_config(
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


LARGEST = 256
"""The longest side of an image in a report, in pixels."""


@torch.no_grad()
def sampled(
    called: Denoiser,
    model: nn.Module,
    scene: Scene,
    scheduler: Any,
    prompts: Sequence[str],
    seed: int,
    steps: int,
) -> list[Image.Image]:
    """An image to each prompt, the same noise for the same seed: by the pipeline with guidance for models
    that read captions, by DDIM or Euler steps for others."""
    with evaluating(model):
        if hasattr(scene.pipeline, "encode_prompt"):
            return _by_pipeline(model, scene, prompts, seed, steps)
        return _by_steps(called, model, scene, scheduler, prompts, seed, steps)


def _by_pipeline(
    model: nn.Module, scene: Scene, prompts: Sequence[str], seed: int, steps: int
) -> list[Image.Image]:
    pipeline, side = scene.pipeline, scene.resolution
    part = denoiser_of(pipeline)
    before = getattr(pipeline, part)
    pipeline.register_modules(**{part: bare(model)})
    takes = inspect.signature(pipeline.__call__).parameters
    exact = {"use_resolution_binning": False} if "use_resolution_binning" in takes else {}
    # adapters are kept in float32 beside weights in bfloat16, and what they give goes on to the autoencoder
    kept = next(getattr(pipeline, "vae", model).parameters())
    mixed = torch.autocast(kept.device.type, kept.dtype, enabled=kept.dtype != torch.float32)
    try:
        with mixed:
            return [
                pipeline(
                    prompt=prompt,
                    height=side,
                    width=side,
                    num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(seed + place),
                    **exact,
                ).images[0]
                for place, prompt in enumerate(prompts)
            ]
    finally:
        pipeline.register_modules(**{part: before})


def _by_steps(
    called: Denoiser,
    model: nn.Module,
    scene: Scene,
    scheduler: Any,
    prompts: Sequence[str],
    seed: int,
    steps: int,
) -> list[Image.Image]:
    vae, device = getattr(scene.pipeline, "vae", None), next(model.parameters()).device
    side = scene.resolution // (1 if vae is None else shrinks(vae))
    shape = (int(scene.config["in_channels"]), side, side)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed + n)) for n in range(len(prompts))]
    )
    told = mapped(family_of(scene.config).encode(scene, list(prompts)), lambda value: value.to(device))
    found = drawn(called, scheduler, noise.to(device), told, steps=steps, clip=vae is None)
    return [as_image(one) for one in (found if vae is None else pixels(vae, found)).float().cpu()]


def address(image: Image.Image) -> str:
    """The image itself as an address, a PNG in base64."""
    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
