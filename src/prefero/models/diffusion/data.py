"""Data sets of images and prompts for a denoiser: each image and prompt encoded once, without a gradient."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from prefero.data.arrange import arrange, asker_of, one_cycle, prompt_of
from prefero.data.examples import Example, Examples
from prefero.data.pictures import Picture
from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.data.summary import one_label
from prefero.data.tokenize import columns_of
from prefero.errors import PreferoError, nearest
from prefero.models.diffusion.conditions import Scene, family_of
from prefero.models.diffusion.process import latents
from prefero.models.diffusion.scoring import mapped
from prefero.objectives.needs import Needs

IMAGES_AT_ONCE = 8
PROMPTS_AT_ONCE = 32
MODES: Mapping[int, str] = {1: "L", 3: "RGB"}
"""Pillow's names for images of so many channels."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The way from images to a denoiser's inputs: the ``scene``, the denoiser's ``channels``, and which
    latent of an image, its most likely one or one drawn with ``seed``."""

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
    """The denoiser's conditions for every prompt, on the CPU."""
    encode = family_of(scene.config).encode
    found: dict[str, Mapping[str, Any]] = {}
    for some in _batches(prompts, PROMPTS_AT_ONCE, "prompts"):
        told = mapped(encode(scene, some), Tensor.cpu)
        found |= {prompt: mapped(told, itemgetter(place)) for place, prompt in enumerate(some)}
    return found


def encoded_images(pictures: Sequence[Picture], encoding: Encoding, sizes: Counter[str]) -> dict[Any, Tensor]:
    """The denoiser's input for every picture, by its key."""
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
    """The image as :func:`fitted` to the model, from −1 to 1."""
    side = encoding.scene.resolution
    image = picture.open(encoding.mode)
    if image.size != (side, side):
        sizes["enlarged" if min(image.size) < side else "reduced or cropped"] += 1
        image = fitted(image, side)
    array = np.array(image, dtype=np.float32)
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The middle of an image, its shorter side resized to ``side`` pixels."""
    if image.size == (side, side):
        return image
    share = side / min(image.size)
    image = image.resize((max(side, round(image.width * share)), max(side, round(image.height * share))))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _batches(values: list[Any], size: int, what: str) -> Iterator[list[Any]]:
    starts = range(0, len(values), size)
    for start in tqdm(
        starts, desc=f"encoding {what}", leave=False, disable=None if len(starts) > 20 else True
    ):
        yield values[start : start + size]


OWN_VIEWS = ("mismatched", "unprompted")
"""Views that no row has to carry: other examples' images, in one cycle, and the empty caption."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureItem:
    """An example: the images of its responses as the denoiser's inputs, with their conditions.

    ``conditions`` are those of its prompt (``""``) and of every view's, without a batch axis; ``views`` has
    the images of a view and which of them it reads. ``draws`` is how many time steps each image gets.
    """

    values: Tensor
    conditions: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, Any]
    views: Mapping[str, tuple[Tensor, tuple[int, ...]]] = field(default_factory=dict)
    draws: int = 1

    @property
    def lengths(self) -> Sequence[int]:
        return [self.draws] * len(self.values)

    def fingerprint(self) -> bytes:
        digest = hashlib.sha256(repr(self.draws).encode())
        for part in _tensors({"": self.values, "told": self.conditions}):
            digest.update(part.float().contiguous().numpy().tobytes())
        for name, (values, places) in sorted(self.views.items()):
            digest.update(repr((name, places)).encode() + values.contiguous().numpy().tobytes())
        for name in sorted(self.columns):
            digest.update(name.encode() + np.asarray(self.columns[name]).tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class PictureSummary:
    """Counts; ``images`` says how large they are to the model."""

    name: str
    format: str
    examples: int
    responses: int
    prompts: int
    skipped: int
    dropped: Mapping[str, int]
    images: str
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class PictureDataset:
    items: tuple[PictureItem, ...]
    roles: tuple[str, ...]
    summary: PictureSummary
    source: Examples

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> PictureItem:
        return self.items[index]

    def __iter__(self) -> Iterator[PictureItem]:
        return iter(self.items)


def prepare(
    examples: Sequence[Example], needs: Needs, encoding: Encoding, method: str = ""
) -> PictureDataset:
    """The examples as an objective reads them, every image and every prompt encoded once.

    Raises :class:`PreferoError` for responses that are no images, prompts that are no text, and roles,
    columns or views that the data do not have.
    """
    arranged = arrange(examples, needs.roles, needs.columns, for_method=method)
    wanted = [name for name in sorted(needs.columns) if not SCHEMA[name].drawn]
    views = {view: need.roles for view, need in needs.views.items()}
    lenders = one_cycle(len(arranged), encoding.seed) if "mismatched" in views else ()
    prompts = [_prompts(example, views, method) for example in arranged]
    texts = dict.fromkeys(text for by in prompts for text in by.values())
    told = encoded_prompts(list(texts), encoding.scene)
    pictures = [_pictures(example) for example in arranged]
    sizes: Counter[str] = Counter()
    seen = encoded_images([picture for own in pictures for picture in own], encoding, sizes)
    values = [torch.stack([seen[key_of(picture)] for picture in own]) for own in pictures]

    def images(view: str, place: int) -> Tensor:
        """The images of an example in a view: its own, or those that another lends to it."""
        if view != "mismatched":
            return values[place]
        lent = values[lenders[place]]
        return lent[torch.arange(len(values[place])) % len(lent)]

    items = tuple(
        PictureItem(
            values[place],
            {view: told[text] for view, text in by.items()},
            columns_of(example, wanted),
            {
                view: (
                    images(view, place),
                    tuple(map(needs.roles.index, read)) or tuple(range(len(example.responses))),
                )
                for view, read in views.items()
            },
            encoding.draws,
        )
        for place, (example, by) in enumerate(zip(arranged, prompts, strict=True))
    )
    return PictureDataset(items, needs.roles, _summary(arranged, items, encoding, len(told), sizes), arranged)


def _prompts(example: Example, views: Mapping[str, Any], method: str) -> dict[str, str]:
    """The prompts of an example: its own, and those of the views."""
    found = {"": example.prompt}
    for view in views:
        if view in OWN_VIEWS:
            found[view] = example.prompt if view == "mismatched" else ""
            continue
        if view not in OTHER_PROMPTS:
            known = (*OWN_VIEWS, *OTHER_PROMPTS)
            raise PreferoError(
                f"{asker_of(method)} reads the view {view!r}{nearest(view, known)}, which is made of text: a "
                f"diffusion model has {', '.join(known)}"
            )
        found[view] = prompt_of(example, view, method)
    texts = {}
    for view, prompt in found.items():
        if not isinstance(prompt, str):
            raise PreferoError(
                f"{example.origin or 'an example'}: the prompt is a conversation; a diffusion model reads a "
                "caption or a class"
            )
        texts[view] = prompt
    return texts


def _pictures(example: Example) -> list[Picture]:
    for response in example.responses:
        if not isinstance(response.content, Picture):
            raise PreferoError(
                f"{example.origin or 'an example'}: the {response.role or 'response'} is text, and a "
                "diffusion model draws images: expected a file's path, bytes, an array, a PIL image or a "
                "datasets image"
            )
    return [response.content for response in example.responses if isinstance(response.content, Picture)]


def _summary(
    arranged: Examples, items: Sequence[PictureItem], encoding: Encoding, prompts: int, sizes: Counter[str]
) -> PictureSummary:
    side, shape = encoding.scene.resolution, tuple(items[0].values.shape[1:])
    latent = "" if encoding.autoencoder is None else f", as latents of {' × '.join(map(str, shape))}"
    notes = [f"{reason} left out: {count}." for reason, count in arranged.dropped.items()]
    notes += filter(None, [one_label(arranged)])
    if arranged.skipped:
        notes.append(f"rows that could not be read: {len(arranged.skipped)}, first {arranged.skipped[0]}.")
    notes += [f"images {what} to {side} × {side} pixels: {count}." for what, count in sorted(sizes.items())]
    return PictureSummary(
        name=arranged.name,
        format=arranged.format,
        examples=len(items),
        responses=sum(len(item.values) for item in items),
        prompts=prompts,
        skipped=len(arranged.skipped),
        dropped=arranged.dropped,
        images=f"{side} × {side} pixels{latent}",
        notes=tuple(notes),
    )


def _tensors(told: Any) -> Iterator[Tensor]:
    if isinstance(told, Mapping):
        for name in sorted(told):
            yield from _tensors(told[name])
    elif isinstance(told, Tensor):
        yield told
