"""Images that a prompt shows: beside it in ``images``, or in the parts of its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefero.data.examples import Example, Message, Text
from prefero.data.formats.fields import Fields
from prefero.data.pictures import Picture, picture
from prefero.data.schema import OTHER_PROMPTS

FIELDS = ("images", "image", "image_path", "video", "frames")
"""Where a row holds what its prompt shows: an image or several, a clip as its frames."""

HELD = ("image", "path", "url", "image_url", "bytes")
"""Where a part of a message holds its image."""


def with_images(example: Example, fields: Fields) -> Example:
    """``example`` with the images that its prompts show, each part of a message numbered.

    Images stand where the messages have parts for them; where there are none, before the text of the first
    turn of the user, or of a plain prompt. ``images_corrupted`` (and so on for every view of
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
    beside = _beside(fields, "")
    images: dict[str, tuple[Picture, ...]] = {}
    prompt, images[""] = _shown(fields, "prompt", example.prompt, beside)
    prompts: dict[str, Text] = {}
    for view, part in OTHER_PROMPTS.items():
        own = _beside(fields, f"_{view}")
        if view in example.prompts or own:
            text = example.prompts.get(view, prompt)
            prompts[view], images[view] = _shown(fields, part.field, text, own or beside or images[""])
    responses = tuple(
        response
        if response.prompt is None
        else replace(response, prompt=_shown(fields, "prompt", response.prompt, images[""])[0])
        for response in example.responses
    )
    if not any(images.values()):
        return example
    return replace(example, prompt=prompt, prompts=prompts, responses=responses, images=images)


def _beside(fields: Fields, ending: str) -> tuple[Picture, ...]:
    """What the row holds beside its prompt."""
    name = fields.first(f"{field}{ending}" for field in FIELDS)
    if name is None:
        return ()
    value = fields.values[name]
    held = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(_picture(fields, item, f"{name}[{place}]") for place, item in enumerate(held))


def _picture(fields: Fields, value: Any, name: str) -> Picture:
    if isinstance(value, str) and "://" in value:
        fields.fail(
            name, f"found the address {value[:80]!r}", "an image that is on this machine: download it"
        )
    return picture(value, f"{fields.origin}, field {name!r}", fields.folder)


def _shown(
    fields: Fields, name: str, prompt: Text, beside: Sequence[Picture]
) -> tuple[Text, tuple[Picture, ...]]:
    """The prompt with its image parts numbered, and the images in their order."""
    if isinstance(prompt, str):
        return prompt, tuple(beside)
    parts = _parts(prompt)
    held = [_held(fields, part, name) for part in parts]
    if not any(held):
        if parts and len(parts) != len(beside):
            found = f"{len(parts)} image parts, and the row has {len(beside)} images"
            fields.fail(name, found, "as many of each")
        if not parts:
            prompt = _before_text(fields, name, prompt, len(beside))
        return _numbered(prompt), tuple(beside)
    if not all(held):
        fields.fail(name, "some image parts hold an image, others none", "all of one kind")
    return _numbered(prompt), tuple(image for image in held if image is not None)


def _parts(turns: Sequence[Message]) -> list[Mapping[str, Any]]:
    """The parts of a conversation that stand for an image."""
    found = []
    for turn in turns:
        if isinstance(turn["content"], list):
            found += [part for part in turn["content"] if isinstance(part, Mapping) and _is_image(part)]
    return found


def _is_image(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("image", "image_url")


def _held(fields: Fields, part: Mapping[str, Any], name: str) -> Picture | None:
    key = next((key for key in HELD if part.get(key) is not None), None)
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
