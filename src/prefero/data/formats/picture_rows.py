"""Rows whose responses are images: pairs, labelled images and lists under a caption or a class.

An image is a file's path (relative to the file that the row stands in), bytes, an array, a PIL image, or what
``datasets`` keeps. The prompt is a caption, or a class by its number or name; models without conditions need
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Response
from prefero.data.formats.annotations import truth
from prefero.data.formats.fields import Fields, json_list
from prefero.data.formats.layout import Layout
from prefero.data.formats.lists import LISTS, RANKS, SCORES
from prefero.data.formats.pairs import refuse_equal
from prefero.data.formats.picture_fields import EXPECTED, as_picture, picture_of, shows
from prefero.data.pictures import Picture, is_picture

PROMPTS = ("prompt", "caption", "class")

CANDIDATES = (*LISTS, "images", "image_paths", "image_path")

PICTURES = ("image", "picture", "path", "file", *(name.removesuffix("s") for name in LISTS))
"""Where an object in a list of candidates holds the image."""


def read_picture_pair(fields: Fields) -> Example:
    """``chosen`` and ``rejected`` are images; they may differ in size."""
    chosen, rejected = (as_picture(fields, name) for name in ("chosen", "rejected"))
    _refuse_equal(fields, chosen, rejected)
    return Example(_prompt(fields), (Response(chosen, "chosen"), Response(rejected, "rejected")))


def read_picks(fields: Fields) -> Example:
    """Pick-a-Pic's rows: ``label_0`` is 1 where the first image was picked, 0 where the second, 0.5 for a
    tie, whose first image counts as the chosen one."""
    expected = "1 (the first image), 0 (the second) or 0.5 (a tie); rows without a label have has_label false"
    share = fields.number("label_0", expected)
    if share not in (0, 0.5, 1) or not fields.values.get("has_label", True):
        fields.fail("label_0", f"found {share:g}, has_label {fields.values.get('has_label')}", expected)
    first, second = (as_picture(fields, name) for name in ("jpg_0", "jpg_1"))
    if share == 0:
        first, second = second, first
    return Example(
        _prompt(fields),
        (Response(first, "chosen"), Response(second, "rejected")),
        {"tie": share == 0.5, "preference": max(share, 1 - share)},
    )


def read_picture_list(fields: Fields) -> Example:
    """All images as unnamed candidates; each may be an object that holds it with its score or rank."""
    name = next(name for name in CANDIDATES if name in fields)
    items = fields.list(name, "a list of images, or objects that hold one")
    if len(items) < 2:
        fields.fail(name, f"{len(items)} image", "two images or more")
    return Example(
        _prompt(fields),
        tuple(_candidate(fields, item, f"{name}[{position}]") for position, item in enumerate(items)),
    )


def read_labelled_picture(fields: Fields) -> Example:
    name = fields.first(("completion", "image")) or "image"
    good = truth(fields, "label", fields.require("label", "true or false"))
    response = Response(as_picture(fields, name), columns={"label": 1.0 if good else -1.0})
    return Example(_prompt(fields), (response,))


def _prompt(fields: Fields) -> str:
    """The caption, or the class as text; empty for rows without any."""
    name = fields.first(PROMPTS)
    value = "" if name is None else fields.values[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        fields.fail(str(name), f"found {type(value).__name__}", "a caption, or a class by number or name")
    return value


def _refuse_equal(fields: Fields, chosen: Picture, rejected: Picture) -> None:
    if type(chosen.content) is type(rejected.content) and chosen.content == rejected.content:
        refuse_equal(fields)


def _candidate(fields: Fields, item: Any, name: str) -> Response:
    columns: dict[str, float] = {}
    if isinstance(item, Mapping) and not is_picture(item):
        for column, keys in (("score", SCORES), ("rank", RANKS), ("win_rate", ("win_rate",))):
            key = next((key for key in keys if item.get(key) is not None), None)
            if key is not None:
                number = fields.as_number(item[key], f"{name}.{key}")
                columns[column] = int(number) if column == "rank" else number
        key = next((key for key in PICTURES if item.get(key) is not None), PICTURES[0])
        name, item = f"{name}.{key}", item.get(key)
    if item is None:
        fields.fail(name, "missing", EXPECTED)
    return Response(picture_of(fields, item, name), columns=columns)


def _is_pair(specimen: Mapping[str, Any]) -> bool:
    return any(shows(specimen.get(name)) for name in ("chosen", "rejected"))


def _is_pick(specimen: Mapping[str, Any]) -> bool:
    return "jpg_0" in specimen and "jpg_1" in specimen


def _is_list(specimen: Mapping[str, Any]) -> bool:
    if any(name in specimen for name in ("chosen", "rejected", "completion", "messages")):
        return False
    held = next((specimen[name] for name in CANDIDATES if name in specimen), None)
    if isinstance(held, str):
        held = json_list(held)
    if not isinstance(held, list | tuple) or not held:
        return False
    first = held[0]
    if isinstance(first, Mapping) and not is_picture(first):
        return any(shows(first.get(name)) for name in PICTURES)
    return shows(first)


def _is_labelled(specimen: Mapping[str, Any]) -> bool:
    held = specimen.get("completion", specimen.get("image"))
    return "label" in specimen and "chosen" not in specimen and shows(held)


PICKS = Layout("picks", "caption, jpg_0, jpg_1, label_0 (Pick-a-Pic)", _is_pick, read_picks)
PICTURE_PAIRS = Layout(
    "picture_pairs", "chosen and rejected images; prompt, caption or class", _is_pair, read_picture_pair
)
PICTURE_LISTS = Layout(
    "picture_lists",
    "images (or responses) with scores, ranks or win_rates, or [{image, score}, …]; prompt, caption or class",
    _is_list,
    read_picture_list,
)
LABELLED_PICTURES = Layout(
    "unpaired_pictures", "image, label; prompt, caption or class", _is_labelled, read_labelled_picture
)
