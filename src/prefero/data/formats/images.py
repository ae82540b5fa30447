"""Rows with images: in prompts of any layout, and layouts whose responses are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefero.data.examples import Example, Message, Response, Text
from prefero.data.formats.fields import IMAGE, Fields, Layout, first_of, shows, spelled
from prefero.data.formats.names import RANKS, SCORES, SINGLE
from prefero.data.formats.responses import judged, refuse_equal
from prefero.data.pictures import Picture, is_picture, picture
from prefero.data.schema import OTHER_PROMPTS

FIELDS = ("images", "image", "image_path", "img_path", "video", "frames")
"""The fields that hold the images of a prompt: an image or several, a clip as its frames."""

IMAGE_FIELDS = tuple(
    f"{field}{ending}" for field in FIELDS for ending in ("", *(f"_{view}" for view in OTHER_PROMPTS))
)
"""The same, and the fields that hold the images of other prompts."""

HELD = ("image", "path", "url", "image_url", "bytes")
"""The keys under which a part of a message holds its image."""

MARK = "<image>"
"""What stands for an image in the texts of rows whose images are in a field of their own."""

CAPTIONS = ("prompt", "caption", "class")

LISTS = ("completions", "responses", "generations", "answers", "candidates")
CANDIDATES = (*LISTS, "images", "image_paths", "image_path")

PICTURES = ("image", "picture", "path", "file", *(name.removesuffix("s") for name in LISTS))
"""The keys under which an object in a list of candidates holds the image."""


def with_images(example: Example, fields: Fields) -> Example:
    """``example`` with the images that its prompts show, each part of a message numbered.

    Images stand where the messages have parts for them; else before the text of the first turn of the user,
    or of a plain prompt. ``images_corrupted`` (and so on for every view of
    :data:`~prefero.data.schema.OTHER_PROMPTS`) are what the prompt of a view shows. Where responses are
    images, prompts show none.
    """
    if any(isinstance(response.content, Picture) for response in example.responses):
        return example
    for response in example.responses:
        if not isinstance(response.content, str | Picture) and _parts(response.content):
            fields.fail(
                str(response.role or "response"), "an image in a response", "images in the prompt alone"
            )
    prompts_of_row = (example.prompt, *example.prompts.values(), *(r.prompt for r in example.responses))
    in_parts = any(_parts(prompt) for prompt in prompts_of_row if isinstance(prompt, tuple))
    if not in_parts and fields.first(IMAGE_FIELDS) is None:
        return example
    separate = _in_fields(fields, "")
    images: dict[str, tuple[Picture, ...]] = {}
    prompt, images[""] = _shown(fields, "prompt", example.prompt, separate)
    prompts: dict[str, Text] = {}
    for view, part in OTHER_PROMPTS.items():
        own = _in_fields(fields, f"_{view}")
        if view in example.prompts or own:
            text = example.prompts.get(view, prompt)
            prompts[view], images[view] = _shown(fields, part.field, text, own or separate or images[""])
    responses = tuple(
        response
        if response.prompt is None
        else replace(response, prompt=_shown(fields, "prompt", response.prompt, images[""])[0])
        for response in example.responses
    )
    if not any(images.values()):
        return example
    return replace(example, prompt=prompt, prompts=prompts, responses=responses, images=images)


def _in_fields(fields: Fields, ending: str) -> tuple[Picture, ...]:
    """The images in fields of their own."""
    name = fields.first(f"{field}{ending}" for field in FIELDS)
    if name is None:
        return ()
    value = fields.get(name)
    held = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(_picture(fields, item, f"{name}[{place}]") for place, item in enumerate(held))


def _picture(fields: Fields, value: Any, name: str) -> Picture:
    if isinstance(value, str) and "://" in value:
        fields.fail(
            name, f"found the address {value[:80]!r}", "an image that is on this machine: download it"
        )
    return picture(value, f"{fields.origin}, field {name!r}", fields.folder)


def _shown(
    fields: Fields, name: str, prompt: Text, separate: Sequence[Picture]
) -> tuple[Text, tuple[Picture, ...]]:
    """The prompt with its image parts numbered, and the images in their order."""
    if isinstance(prompt, str):
        return prompt, tuple(separate)
    prompt = _at_marks(fields, name, prompt, len(separate))
    parts = _parts(prompt)
    held = [_held(fields, part, name) for part in parts]
    if not any(held):
        if parts and len(parts) != len(separate):
            found = f"{len(parts)} image parts, and the row has {len(separate)} images"
            fields.fail(name, found, "as many of each")
        if not parts:
            prompt = _before_text(fields, name, prompt, len(separate))
        return _numbered(prompt), tuple(separate)
    if not all(held):
        fields.fail(name, "some image parts hold an image, others none", "all of one kind")
    return _numbered(prompt), tuple(image for image in held if image is not None)


def _at_marks(fields: Fields, name: str, prompt: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """The conversation with image parts where its texts have a mark for each of ``count`` images."""
    marks = sum(turn["content"].count(MARK) for turn in prompt if isinstance(turn["content"], str))
    if not count or not marks:
        return prompt
    if marks != count:
        fields.fail(name, f"{marks} marks {MARK}, and the row has {count} images", "as many of each")
    return tuple(
        {**turn, "content": _split(turn["content"])}
        if isinstance(turn["content"], str) and MARK in turn["content"]
        else turn
        for turn in prompt
    )


def _split(text: str) -> list[Mapping[str, Any]]:
    """A text with marks as parts; the line break between a mark and the text is not a part of it."""
    parts: list[Mapping[str, Any]] = []
    for place, piece in enumerate(text.split(MARK)):
        if place:
            parts.append({"type": "image"})
        if said := piece.strip("\n"):
            parts.append({"type": "text", "text": said})
    return parts


def _parts(turns: Sequence[Message]) -> list[Mapping[str, Any]]:
    """The parts of a conversation that stand for an image."""
    parts = []
    for turn in turns:
        if isinstance(turn["content"], list):
            parts += [part for part in turn["content"] if isinstance(part, Mapping) and _is_image(part)]
    return parts


def _is_image(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("image", "image_url")


def _held(fields: Fields, part: Mapping[str, Any], name: str) -> Picture | None:
    key = first_of(part, HELD)
    if key is None:
        return None
    value = part[key]
    if key == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    return _picture(fields, value, f"{name}, part {key!r}")


def _before_text(fields: Fields, name: str, prompt: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Image parts in the first turn of the user, before what it says."""
    if not count:
        return prompt
    place = next((place for place, turn in enumerate(prompt) if turn["role"] == "user"), None)
    if place is None:
        fields.fail(name, "no turn of the user", "a turn of the user, in which the images stand")
    turn = prompt[place]
    said = turn["content"]
    said = [{"type": "text", "text": said}] if isinstance(said, str) else list(said or ())
    turn = {**turn, "content": [*({"type": "image"} for _ in range(count)), *said]}
    return (*prompt[:place], turn, *prompt[place + 1 :])


def _numbered(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with bare, numbered image parts, and no part holding what is null."""
    number = 0
    turns = []
    for turn in prompt:
        if isinstance(turn["content"], list):
            parts: list[Mapping[str, Any]] = []
            for part in turn["content"]:
                if isinstance(part, Mapping) and _is_image(part):
                    parts.append({"type": "image", "number": number})
                    number += 1
                elif isinstance(part, Mapping):
                    parts.append({key: value for key, value in part.items() if value is not None})
                else:
                    parts.append(part)
            turn = {**turn, "content": parts}
        turns.append(turn)
    return tuple(turns)


def read_picture_pair(fields: Fields) -> Example:
    """``chosen`` and ``rejected`` are images; they may differ in size."""
    chosen, rejected = (fields.picture(name) for name in ("chosen", "rejected"))
    if type(chosen.content) is type(rejected.content) and chosen.content == rejected.content:
        refuse_equal(fields)
    return Example(_prompt(fields), (Response(chosen, "chosen"), Response(rejected, "rejected")))


def read_picks(fields: Fields) -> Example:
    """Pick-a-Pic's rows: ``label_0`` is 1 where the first image was picked, 0 where the second, 0.5 for a
    tie."""
    expected = "1 (the first image), 0 (the second) or 0.5 (a tie); rows without a label have has_label false"
    share = fields.number("label_0", expected)
    if share not in (0, 0.5, 1) or fields.get("has_label") in (False, 0):
        fields.fail("label_0", f"found {share:g}, has_label {fields.get('has_label')}", expected)
    first, second = (fields.picture(name) for name in ("jpg_0", "jpg_1"))
    if share == 0:
        first, second = second, first
    return Example(
        _prompt(fields),
        (Response(first, "chosen"), Response(second, "rejected")),
        {"tie": share == 0.5, "preference": max(share, 1 - share)},
    )


def read_picture_list(fields: Fields) -> Example:
    """All images as unnamed candidates; each may be an object that holds it with its score or rank."""
    name = fields.first(CANDIDATES) or CANDIDATES[0]
    items = fields.list(name, "a list of images, or objects that hold one")
    if len(items) < 2:
        fields.fail(name, f"{len(items)} image", "two images or more")
    return Example(
        _prompt(fields),
        tuple(_candidate(fields, item, f"{name}[{position}]") for position, item in enumerate(items)),
    )


def read_labelled_picture(fields: Fields) -> Example:
    name = fields.first(("completion", "image")) or "image"
    good = fields.truth("label", fields.require("label", "true or false"))
    response = Response(fields.picture(name), columns={"label": 1.0 if good else -1.0})
    return Example(_prompt(fields), (response,))


def _prompt(fields: Fields) -> str:
    """The caption, or the class as text; empty for rows without any."""
    name = fields.first(CAPTIONS)
    value = "" if name is None else fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        fields.fail(str(name), f"found {type(value).__name__}", "a caption, or a class by number or name")
    return value


def _candidate(fields: Fields, item: Any, name: str) -> Response:
    columns: dict[str, float] = {}
    if isinstance(item, Mapping) and not is_picture(item):
        columns = judged(fields, item, name, {"score": SCORES, "rank": RANKS, "win_rate": ("win_rate",)})
        key = first_of(item, PICTURES) or PICTURES[0]
        name, item = f"{name}.{key}", fields.take(name, item, key)
    if item is None:
        fields.fail(name, "missing", IMAGE)
    return Response(fields.as_picture(item, name), columns=columns)


def _holds_picture_list(specimen: Mapping[str, Any]) -> bool:
    items = next(specimen[name] for name in CANDIDATES if name in specimen)
    if isinstance(items, str):
        items = spelled(items)
    if not isinstance(items, list | tuple) or not items:
        return False
    first = items[0]
    if isinstance(first, Mapping) and not is_picture(first):
        return any(shows(first.get(name)) for name in PICTURES)
    return shows(first)


PICKS = Layout(
    "picks",
    "caption, jpg_0, jpg_1, label_0 (Pick-a-Pic)",
    read_picks,
    fields=("jpg_0", "jpg_1"),
)
PICTURE_PAIRS = Layout(
    "picture_pairs",
    "chosen and rejected images; prompt, caption or class",
    read_picture_pair,
    fields=("chosen|rejected",),
    holds=lambda specimen: shows(specimen.get("chosen")) or shows(specimen.get("rejected")),
)
PICTURE_LISTS = Layout(
    "picture_lists",
    "images (or responses) with scores, ranks or win_rates, or [{image, score}, …]; prompt, caption or class",
    read_picture_list,
    fields=("|".join(CANDIDATES),),
    without="|".join(("chosen", "rejected", "messages", *SINGLE)),
    holds=_holds_picture_list,
)
LABELLED_PICTURES = Layout(
    "unpaired_pictures",
    "image, label; prompt, caption or class",
    read_labelled_picture,
    fields=("label", "completion|image"),
    without="chosen",
    holds=lambda specimen: shows(specimen.get("completion", specimen.get("image"))),
)
