"""Fields of a row that hold images."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np

from prefero.data.formats.fields import Fields
from prefero.data.pictures import Picture, is_picture, picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")

EXPECTED = "an image: a file's path, bytes, an array, a PIL image or a datasets image"


def as_picture(fields: Fields, name: str) -> Picture:
    return picture_of(fields, fields.require(name, EXPECTED), name)


def picture_of(fields: Fields, value: Any, name: str) -> Picture:
    """A value as an image; a file has to be there."""
    if not shows(value):
        fields.fail(name, f"found {type(value).__name__} {str(value)[:60]!r}", EXPECTED)
    if isinstance(value, list):
        value = _pixels(fields, value, name)
    found = picture(value, f"{fields.origin}, field {name!r}", fields.folder)
    if isinstance(found.content, PurePath) and not found.content.is_file():
        fields.fail(name, f"there is no file {found.content}", "an image's path, relative to the data's file")
    return found


def shows(value: Any) -> bool:
    """Whether a value is an image: also a path, by its ending, and rows of pixels."""
    if isinstance(value, str):
        return value.lower().endswith(ENDINGS) and "\n" not in value
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], list)
    return is_picture(value)


def _pixels(fields: Fields, rows: list[Any], name: str) -> np.ndarray:
    expected = "rows of pixels, whole numbers from 0 to 255"
    try:
        array = np.asarray(rows)
    except ValueError:
        fields.fail(name, "lists of different lengths", expected)
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() > 255:
        fields.fail(name, f"an array of {array.dtype} numbers", expected)
    return array.astype(np.uint8)
