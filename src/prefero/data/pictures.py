"""Images in rows of data: files, encoded bytes or decoded, opened when they are needed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from prefero.errors import PreferoError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image as a row holds it; ``origin`` says where, for error messages. ``change`` is made to it when it
    is opened, the same one each time."""

    content: Path | bytes | Image.Image
    origin: str = ""
    change: Callable[[Image.Image], Image.Image] | None = None

    def open(self, mode: str = "RGB") -> Image.Image:
        """The decoded image, in a mode of Pillow's.

        Raises:
            PreferoError: there is no such file, or it is no image.
        """
        if self.change is not None:
            return self.change(replace(self, change=None).open()).convert(mode)
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
        """A hash of what is seen: the same for equal images, however they are kept."""
        return digest_of(self.open())

    @property
    def identity(self) -> str:
        """What tells it from others without decoding a file; equal images in two files are two."""
        if isinstance(self.content, Image.Image):
            return self.digest.hex()
        kept = self.content if isinstance(self.content, Path) else hashlib.sha256(self.content).hexdigest()
        return f"{kept} {self.change}"


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
    """A field as an image; paths are relative to ``folder``, that of the file the row stands in.

    Raises:
        PreferoError: it is nothing that an image could be.
    """
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
