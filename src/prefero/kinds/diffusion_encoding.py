"""Images and prompts as a denoiser is given them: each encoded once, without a gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from prefero.data.pictures import Picture
from prefero.errors import PreferoError
from prefero.kinds.diffusion_conditions import Scene, family_of
from prefero.models.diffusion import mapped
from prefero.models.diffusion_latents import latents

IMAGES_AT_ONCE = 8
PROMPTS_AT_ONCE = 32
MODES: Mapping[int, str] = {1: "L", 3: "RGB"}
"""Pillow's names for images of so many channels."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How images become what the denoiser sees: in the ``scene``, with so many ``channels`` of its own;
    ``posterior`` says which of an image's latents, its most likely one or one drawn with ``seed``."""

    scene: Scene
    channels: int
    posterior: Literal["mean", "sample"] = "mean"
    draws: int = 1
    seed: int = 0

    @property
    def autoencoder(self) -> Any:
        return getattr(self.scene.pipeline, "vae", None)

    @property
    def mode(self) -> str:
        count = self.channels if self.autoencoder is None else self.autoencoder.config.in_channels
        if count not in MODES:
            raise PreferoError(
                f"the model sees {count} channels, not 1 or 3 as of images: those are latents of an "
                "autoencoder, which is in its pipeline; name that with model.options.pipeline, or give it as "
                "processing_class"
            )
        return MODES[count]


def key_of(picture: Picture) -> Any:
    return id(picture.content) if isinstance(picture.content, Image.Image) else picture.content


@torch.no_grad()
def encoded_prompts(prompts: list[str], scene: Scene) -> dict[str, Mapping[str, Any]]:
    """What the denoiser is told for every prompt, on the CPU."""
    encode = family_of(scene.config).encode
    found: dict[str, Mapping[str, Any]] = {}
    for some in _batches(prompts, PROMPTS_AT_ONCE, "prompts"):
        told = mapped(encode(scene, some), Tensor.cpu)
        found |= {prompt: mapped(told, itemgetter(place)) for place, prompt in enumerate(some)}
    return found


def encoded_images(pictures: Sequence[Picture], encoding: Encoding, sizes: Counter[str]) -> dict[Any, Tensor]:
    """What the denoiser sees of every picture, by its key."""
    distinct = {key_of(picture): picture for picture in pictures}
    generator = torch.Generator().manual_seed(encoding.seed) if encoding.posterior == "sample" else None
    vae, lay_out = encoding.autoencoder, family_of(encoding.scene.config).latents
    found: dict[Any, Tensor] = {}
    with nullcontext() if vae is None else _in_float32(vae):
        for keys in _batches(list(distinct), IMAGES_AT_ONCE, "images"):
            seen = torch.stack([_pixels(distinct[key], encoding, sizes) for key in keys])
            if vae is not None:
                seen = lay_out(latents(vae, seen[:, None].to(vae.device), generator)[:, 0]).cpu()
            found |= dict(zip(keys, seen, strict=True))
    return found


@contextmanager
def _in_float32(autoencoder: Any) -> Iterator[None]:
    """Some autoencoders overflow in half precision."""
    before = autoencoder.dtype
    if before == torch.float32:
        yield
        return
    autoencoder.float()
    try:
        yield
    finally:
        autoencoder.to(before)


def _pixels(picture: Picture, encoding: Encoding, sizes: Counter[str]) -> Tensor:
    """From −1 to 1, the middle of the image, its shorter side as long as the model wants it."""
    side = encoding.scene.resolution
    image = picture.open(encoding.mode)
    if image.size != (side, side):
        sizes["enlarged" if min(image.size) < side else "reduced or cropped"] += 1
        share = side / min(image.size)
        image = image.resize((max(side, round(image.width * share)), max(side, round(image.height * share))))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    array = np.array(image, dtype=np.float32)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1


def _batches(values: list[Any], size: int, what: str) -> Iterator[list[Any]]:
    starts = range(0, len(values), size)
    for start in tqdm(
        starts, desc=f"encoding {what}", leave=False, disable=None if len(starts) > 20 else True
    ):
        yield values[start : start + size]
