"""Images of rows of data (files, bytes or decoded), opened when they are needed, and their corruptions."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, UnidentifiedImageError

from prefero.errors import PreferoError, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image as a row holds it; ``origin`` is the row's field, for error messages. ``changes`` are applied
    whenever it is opened, with the same result each time."""

    content: Path | bytes | Image.Image
    origin: str = ""
    changes: tuple[Corruption, ...] = ()

    def open(self, mode: str = "RGB") -> Image.Image:
        """The decoded image, in a mode of Pillow's. Raises :class:`PreferoError` for a missing file and for
        no image."""
        if self.changes:
            before = replace(self, changes=self.changes[:-1])
            return self.changes[-1](before.open()).convert(mode)
        if isinstance(self.content, Image.Image):
            return self.content.convert(mode)
        named = str(self.content) if isinstance(self.content, Path) else f"{len(self.content)} bytes"
        try:
            source = self.content if isinstance(self.content, Path) else io.BytesIO(self.content)
            with Image.open(source) as image:
                return image.convert(mode)
        except FileNotFoundError:
            raise PreferoError(f"{self.origin}: there is no image {named}") from None
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise PreferoError(f"{self.origin}: {named} cannot be read as an image: {error}") from None

    @property
    def digest(self) -> bytes:
        """A hash of the pixels: the same for equal images, however they are stored."""
        return digest_of(self.open())

    @property
    def identity(self) -> str:
        """A name of the image that needs no decoding of files; equal images in two files have two."""
        if isinstance(self.content, Image.Image):
            return self.digest.hex()
        kept = self.content if isinstance(self.content, Path) else hashlib.sha256(self.content).hexdigest()
        return f"{kept} {self.changes}"


def digest_of(image: Image.Image) -> bytes:
    """A hash of the pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def is_picture(value: Any) -> bool:
    """Whether a field holds an image rather than text: an image, bytes, an array, or how ``datasets`` keeps
    one (a mapping with ``bytes`` or ``path``). A path alone is a string, which could be any text."""
    if isinstance(value, Mapping):
        return {"bytes", "path"} >= set(value) and any(value.values())
    return isinstance(value, Image.Image | bytes | bytearray | Path | np.ndarray | Picture)


def picture(value: Any, origin: str, folder: Path | None = None) -> Picture:
    """A field as an image; paths are relative to ``folder``, that of the file the row stands in. Raises
    :class:`PreferoError` for what no image could be."""
    if isinstance(value, Picture):
        return value
    if isinstance(value, Mapping) and is_picture(value):
        value = value.get("bytes") or value["path"]
    if isinstance(value, np.ndarray):
        try:
            value = Image.fromarray(value)
        except (TypeError, ValueError) as error:
            raise PreferoError(f"{origin}: an array of shape {value.shape} is no image: {error}") from None
    if isinstance(value, str | Path):
        path = Path(value).expanduser()
        value = path if path.is_absolute() or folder is None else folder / path
    if isinstance(value, bytearray):
        value = bytes(value)
    if not isinstance(value, Path | bytes | Image.Image):
        raise PreferoError(
            f"{origin}: expected an image (a file's path, bytes, an array, a PIL image or a datasets image), "
            f"found {type(value).__name__}"
        )
    return Picture(value, origin)


Pixels = NDArray[np.float64]
"""[height, width, channel], 0 to 255."""

DEFAULTS: Mapping[str, float] = {
    "crop": 0.2,
    "noise": 500.0,
    "mask": 0.3,
    "blank": 0.0,
    "blur": 0.1,
    "shuffle": 4.0,
}
"""The strength of each corruption that is used unless another is asked for."""

MEANING: Mapping[str, tuple[str, float, float]] = {
    "crop": ("the largest share of the area that a random crop keeps, which is enlarged again", 0.01, 1.0),
    "noise": ("the step, of 1000, of a diffusion model's noise schedule", 1.0, 1000.0),
    "mask": ("the share of the pixels that become the image's mean colour", 0.0, 1.0),
    "blank": ("the brightness of the one grey that is left, from black to white", 0.0, 255.0),
    "blur": ("the radius of the Gaussian blur, as a share of the shorter side", 0.0, 1.0),
    "shuffle": ("patches a side, which change their places at random", 2.0, 64.0),
}
"""The meaning of each corruption's strength, its least and its largest value."""

ACROSS = ("other", "reverse", "reorder")
"""Corruptions that put another image in place: another example's, the clip's frames backwards or shuffled."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to corrupt an image, with its strength (:data:`MEANING`) and the seed of its draws."""

    name: str
    strength: float
    seed: tuple[int, ...]

    def __call__(self, image: Image.Image) -> Image.Image:
        return _FUNCTIONS[self.name](image.convert("RGB"), self.strength, np.random.default_rng(self.seed))


def corrupted(
    images: Sequence[Picture], name: str, strength: float | None, seed: tuple[int, ...]
) -> tuple[Picture, ...]:
    """The images of one prompt, corrupted. ``strength`` None is the default of :data:`DEFAULTS`.

    ``crop`` is mDPO's (Wang et al., 2024, arXiv 2406.11839), ``mask`` is OPA-DPO's (Yang et al., 2025, arXiv
    2501.09695), ``reverse`` and ``reorder`` are for clips (Ding et al., 2025, arXiv 2504.05810). Raises
    :class:`PreferoError` for an unknown corruption, a strength out of its range, or a clip of one frame to
    reorder.
    """
    check(name, strength)
    if name in ("reverse", "reorder"):
        return _reordered(images, name, np.random.default_rng(seed))
    how = DEFAULTS[name] if strength is None else strength
    return tuple(
        replace(image, changes=(*image.changes, Corruption(name, how, (*seed, number))))
        for number, image in enumerate(images)
    )


def check(name: str, strength: float | None) -> None:
    """Raise :class:`PreferoError` for a corruption that is not known, or a strength out of its range."""
    known = (*DEFAULTS, *ACROSS)
    if name not in known:
        raise PreferoError(f"no image corruption {name!r}{nearest(name, known)}: {', '.join(known)}")
    if strength is None:
        return
    if name in ACROSS:
        raise PreferoError(f"the image corruption {name!r} has no strength, and was given {strength:g}")
    meaning, least, largest = MEANING[name]
    if not least <= strength <= largest:
        raise PreferoError(
            f"the strength of the image corruption {name!r} is {strength:g}; expected {meaning}: from "
            f"{least:g} to {largest:g}"
        )


def _reordered(images: Sequence[Picture], name: str, generator: np.random.Generator) -> tuple[Picture, ...]:
    if len(images) < 2:
        raise PreferoError(
            f"{images[0].origin if images else 'a prompt'}: {name} puts the frames of a clip in another "
            "order, and there is one alone; choose another corruption, such as crop"
        )
    count = len(images)
    order = list(range(count))[::-1] if name == "reverse" else _moved(count, generator)
    return tuple(images[place] for place in order)


def _moved(count: int, generator: np.random.Generator) -> list[int]:
    """A random order other than the given one, where there is another."""
    order = list(range(count))
    while count > 1 and order == sorted(order):
        order = generator.permutation(count).tolist()
    return order


def _crop(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    width, height = image.size
    share = generator.uniform(min(0.01, strength), strength)
    stretch = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
    wide = int(np.clip(round((share * width * height * stretch) ** 0.5), 1, width))
    high = int(np.clip(round((share * width * height / stretch) ** 0.5), 1, height))
    left, top = generator.integers(0, width - wide + 1), generator.integers(0, height - high + 1)
    box = (int(left), int(top), int(left) + wide, int(top) + high)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _noise(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """The forward process of a diffusion model with the linear schedule of Ho et al. (2020)."""
    kept = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: int(strength)])
    scaled = _pixels(image) / 127.5 - 1
    noisy = kept**0.5 * scaled + (1 - kept) ** 0.5 * generator.standard_normal(scaled.shape)
    return _image((noisy + 1) * 127.5)


def _mask(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    pixels = _pixels(image)
    hidden = generator.random(pixels.shape[:2]) < strength
    return _image(np.where(hidden[..., None], pixels.mean((0, 1)), pixels))


def _shuffle(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Patches of one size change places; what is left over at the right and at the bottom stays."""
    pixels, side = _pixels(image), max(int(strength), 2)
    high, wide = (max(length // side, 1) for length in pixels.shape[:2])
    places = [
        (row * high, column * wide)
        for row in range(min(side, pixels.shape[0]))
        for column in range(min(side, pixels.shape[1]))
    ]
    moved = pixels.copy()
    for (to_y, to_x), source in zip(places, _moved(len(places), generator), strict=True):
        y, x = places[source]
        moved[to_y : to_y + high, to_x : to_x + wide] = pixels[y : y + high, x : x + wide]
    return _image(moved)


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float64)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


_FUNCTIONS: Mapping[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "crop": _crop,
    "noise": _noise,
    "mask": _mask,
    "blank": lambda image, strength, _: Image.new("RGB", image.size, (int(strength),) * 3),
    "blur": lambda image, strength, _: image.filter(ImageFilter.GaussianBlur(strength * min(image.size))),
    "shuffle": _shuffle,
}
