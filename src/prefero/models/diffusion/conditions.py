"""Prompts as the conditions of a denoiser: computed once, without a gradient, by its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefero.errors import PreferoError, nearest
from prefero.models.diffusion.scoring import Denoiser

Told = dict[str, Any]
"""Arguments of a denoiser, by name: tensors with one row for each prompt, or mappings of such."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The source of conditions: ``pipeline`` without its denoiser, the denoiser's ``config``, the size of
    images in pixels, and the guidance of a distilled model."""

    pipeline: Any
    config: Mapping[str, Any]
    resolution: int
    guidance: float = 3.5


Encode = Callable[[Scene, list[str]], Told]
"""Turns prompts into the denoiser's arguments, a row for each."""

Call = Callable[[Scene, nn.Module], Denoiser]
"""Wraps a model of the family so that it is called as all are."""


@dataclass(frozen=True, slots=True)
class Family:
    """``latents`` lays latents out as the denoiser wants them."""

    encode: Encode
    call: Call = lambda scene, model: model
    latents: Callable[[Tensor], Tensor] = lambda latents: latents


def unet(scene: Scene, prompts: list[str]) -> Told:
    """Classes, captions, or nothing."""
    if has_classes(scene.config):
        return {"class_labels": classes(scene, prompts)}
    if scene.config.get("cross_attention_dim") and scene.config.get("_class_name") != "UNet2DModel":
        return captions(scene, prompts)
    told = next((prompt for prompt in prompts if prompt), None)
    if told is not None:
        raise PreferoError(
            f"the model draws without being told what: it cannot take the prompt {told[:60]!r}. Leave the "
            "prompts out, or take a model with classes or captions"
        )
    return {}


def captions(scene: Scene, prompts: list[str]) -> Told:
    """Conditions of Stable Diffusion and Stable Diffusion XL, for whole images of their own size."""
    pipeline = needed(scene)
    found = pipeline.encode_prompt(
        prompts, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    told: Told = {"encoder_hidden_states": found[0]}
    if scene.config.get("addition_embed_type") == "text_time":
        size = [scene.resolution, scene.resolution]
        whole = torch.tensor([*size, 0, 0, *size], dtype=found[0].dtype, device=found[0].device)
        told["added_cond_kwargs"] = {"text_embeds": found[2], "time_ids": whole.repeat(len(prompts), 1)}
    return told


def joint(scene: Scene, prompts: list[str]) -> Told:
    """Conditions of Stable Diffusion 3."""
    pipeline = needed(scene)
    embeddings, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, device=pipeline.device, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def pixart(scene: Scene, prompts: list[str]) -> Told:
    pipeline = needed(scene)
    embeddings, mask, *_ = pipeline.encode_prompt(
        prompts, device=pipeline.device, do_classifier_free_guidance=False
    )
    shape: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if scene.config.get("sample_size") == 128:
        size = torch.full((len(prompts), 2), float(scene.resolution), device=embeddings.device)
        shape = {"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])}
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask, "added_cond_kwargs": shape}


def classes_alone(scene: Scene, prompts: list[str]) -> Told:
    return {"class_labels": classes(scene, prompts)}


def transformer(scene: Scene, prompts: list[str]) -> Told:
    """Conditions of DiT or PixArt, which older files call ``Transformer2DModel``."""
    tell = pixart if scene.config.get("norm_type") == "ada_norm_single" else classes_alone
    return tell(scene, prompts)


def flux(scene: Scene, prompts: list[str]) -> Told:
    pipeline = needed(scene)
    embeddings, pooled, _ = pipeline.encode_prompt(prompts, None, device=pipeline.device)
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def calling_flux(scene: Scene, model: nn.Module) -> Denoiser:
    """A Flux model with places of patches and words, times in [0, 1], and guidance where it is distilled."""

    def called(given: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **others: Any) -> Any:
        side = round(given.shape[1] ** 0.5)
        places = given.new_zeros(side, side, 3)
        places[..., 1] = torch.arange(side, device=given.device)[:, None]
        places[..., 2] = torch.arange(side, device=given.device)
        words = given.new_zeros(encoder_hidden_states.shape[1], 3)
        if scene.config.get("guidance_embeds"):
            others["guidance"] = given.new_full((len(given),), scene.guidance)
        return model(
            hidden_states=given,
            timestep=timestep / 1000,
            encoder_hidden_states=encoder_hidden_states,
            txt_ids=words,
            img_ids=places.flatten(0, 1),
            **others,
        )

    return called


def packed(latents: Tensor) -> Tensor:
    """Latents with patches of 2 × 2 as tokens."""
    *rows, channels, height, width = latents.shape
    cut = latents.view(-1, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(*rows, height * width // 4, channels * 4)


FAMILIES: Mapping[str, Family] = {
    "UNet2DModel": Family(unet),
    "UNet2DConditionModel": Family(unet),
    "DiTTransformer2DModel": Family(classes_alone),
    "Transformer2DModel": Family(transformer),
    "SD3Transformer2DModel": Family(joint),
    "PixArtTransformer2DModel": Family(pixart),
    "FluxTransformer2DModel": Family(flux, calling_flux, packed),
}


def family_of(config: Mapping[str, Any]) -> Family:
    name = str(config["_class_name"])
    if name not in FAMILIES:
        raise PreferoError(
            f"how a {name} is told what to draw is not known{nearest(name, FAMILIES)}. Known are: "
            f"{', '.join(FAMILIES)}; prefero.models.diffusion.scoring.DiffusionAdapter scores any model "
            "whose conditions you give it"
        )
    return FAMILIES[name]


def has_classes(config: Mapping[str, Any]) -> bool:
    return bool(config.get("num_class_embeds") or config.get("num_embeds_ada_norm"))


def classes(scene: Scene, prompts: Sequence[str]) -> Tensor:
    """Numbers of classes, from numbers or the names that a pipeline has. Raises :class:`PreferoError` for
    other prompts."""
    names: Mapping[str, int] = getattr(scene.pipeline, "labels", None) or {}
    count = int(scene.config.get("num_class_embeds") or scene.config.get("num_embeds_ada_norm") or 0)
    found = []
    for prompt in prompts:
        number = names.get(prompt, int(prompt) if prompt.strip().isdecimal() else -1)
        if not 0 <= number < count:
            named = f", or a name{nearest(prompt, names)}" if names else ""
            raise PreferoError(
                f"the model draws classes, and the prompt {prompt[:60]!r} is none: expected a number from 0 "
                f"to {count - 1}{named}"
            )
        found.append(number)
    return torch.tensor(found)


def needed(scene: Scene) -> Any:
    if scene.pipeline is None:
        raise PreferoError(
            f"a {scene.config['_class_name']} reads captions, and has no text encoder of its own: name the "
            "pipeline that it belongs to with model.options.pipeline, or give it as processing_class"
        )
    return scene.pipeline
