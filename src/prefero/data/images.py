"""Images among token ids, and the arrays that a model is given of them.

An image stands in a prompt as as many tokens as the model makes of it. Their ids are negative, no two are
equal, and they are a hash of the pixels: so a trie shares an image exactly where it is the same image, and
a hash of token ids covers the images too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prefero.data.examples import Example, Message, Text
from prefero.data.pictures import Picture, digest_of
from prefero.errors import PreferoError

PLACE_BITS = 17
"""Bits of an id that count the tokens of an image; the other 46 are its key."""

MOST_TOKENS = 2**PLACE_BITS

KEPT_BYTES = 256 * 2**20
"""Memory for the arrays of images that are remembered."""

Ids = NDArray[np.int64]

Pictures = tuple[Picture, ...]

Arrays = Mapping[str, Tensor]
"""An image as a processor prepares it for its model: ``pixel_values`` and the like."""


def image_key(digest: bytes) -> int:
    """The number that stands for an image in ids, from a hash of it."""
    return int.from_bytes(digest[:8], "big") >> (PLACE_BITS + 1)


def image_ids(key: int, tokens: int) -> Ids:
    """The ids of an image's tokens."""
    return ~((key << PLACE_BITS) | np.arange(tokens, dtype=np.int64))


@overload
def keys_of(ids: Tensor) -> Tensor: ...
@overload
def keys_of(ids: Ids) -> Ids: ...
def keys_of(ids: Tensor | Ids) -> Tensor | Ids:
    """The keys of the images that tokens belong to; -1 for text."""
    return (~ids >> PLACE_BITS) * (ids < 0) - 1 * (ids >= 0)


class ImagePrompts:
    """Prompts with images, as a processor encodes them.

    ``placeholder`` is the token that stands for a part of an image in the model's input. ``known`` has, by
    key, the images that prompts have shown: mostly one each, several where the processor reads them together.
    """

    def __init__(self, processor: Any, placeholder: int) -> None:
        self.processor, self.placeholder = processor, placeholder
        self.known: dict[int, Pictures] = {}
        self._layouts: dict[tuple[str, tuple[tuple[int, int], ...]], tuple[Ids, tuple[int, ...]]] = {}
        self._alone: dict[tuple[int, int], int] = {}
        self._prepared: OrderedDict[int, Arrays] = OrderedDict()

    @property
    def chat_template(self) -> str | None:
        return self.processor.chat_template or self.processor.tokenizer.chat_template

    def apply_chat_template(self, turns: Sequence[Message], **options: Any) -> str:
        """The conversation as the processor's template writes it, a mark where each image stands."""
        template = self.processor if self.processor.chat_template else self.processor.tokenizer
        return template.apply_chat_template([in_parts(turn) for turn in turns], **options)

    @property
    def mark(self) -> str:
        """The mark in a text where an image stands."""
        return self.processor.image_token

    def context(self, text: str, images: Pictures, origin: str) -> Ids:
        """The ids of a prompt, those of images below 0.

        Raises :class:`PreferoError` for a text that has not as many marks as images, an image that cannot be
        opened, and what the processor refuses.
        """
        marks = text.count(self.mark)
        if not marks:
            text, marks = self.mark * len(images) + text, len(images)
        if marks != len(images):
            raise PreferoError(
                f"{origin}, field 'prompt': {marks} times {self.mark}, and {len(images)} images. Expected as "
                "many of each"
            )
        opened = [image.open() for image in images]
        ids, counts = self._layout(text, opened, origin)
        ids, places = ids.copy(), np.flatnonzero(ids == self.placeholder)
        digests = [digest_of(image) for image in opened]
        groups: list[tuple[Pictures, list[bytes]]] = [
            ((image,), [digest]) for image, digest in zip(images, digests, strict=True)
        ]
        if len(counts) < len(images):
            groups = [(images, digests)]
        written = []
        for (group, seen), count in zip(groups, counts, strict=True):
            key = image_key(hashlib.sha256(b"".join((self._settings, *seen))).digest())
            self.known.setdefault(key, group)
            written.append(image_ids(key, count))
        ids[places] = np.concatenate(written)
        return ids

    def _layout(self, text: str, images: Sequence[Image.Image], origin: str) -> tuple[Ids, tuple[int, ...]]:
        """The ids with placeholders and how many each image has, the same for all images of these sizes; one
        number alone, where the processor does not read each by itself."""
        sizes = tuple(image.size for image in images)
        if (text, sizes) not in self._layouts:
            ids = self._processed(text, images, origin)
            counts = tuple(self._tokens(image, origin) for image in images)
            total = int((ids == self.placeholder).sum())
            if not total or total > MOST_TOKENS * len(images):
                raise PreferoError(
                    f"{origin}: {type(self.processor).__name__} makes {total} tokens of {len(images)} "
                    f"images; expected from 1 to {MOST_TOKENS} of each. Name the processor of this model"
                )
            self._layouts[text, sizes] = ids, counts if sum(counts) == total else (total,)
        return self._layouts[text, sizes]

    def _processed(self, text: str, images: Sequence[Image.Image], origin: str) -> Ids:
        try:
            inputs = self.processor(text=[text], images=[list(images)], add_special_tokens=False)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PreferoError(
                f"{origin}: {type(self.processor).__name__} refuses a prompt with {len(images)} images: "
                f"{first}"
            ) from error
        return np.asarray(inputs["input_ids"][0], dtype=np.int64)

    def _tokens(self, image: Image.Image, origin: str) -> int:
        """The number of tokens that an image of this size takes by itself."""
        if image.size not in self._alone:
            ids = self._processed(self.mark, [image], origin)
            self._alone[image.size] = int((ids == self.placeholder).sum())
        return self._alone[image.size]

    @cached_property
    def _settings(self) -> bytes:
        return hashlib.sha256(self.processor.image_processor.to_json_string().encode()).digest()

    def shown(self, contexts: Sequence[Ids]) -> dict[int, Pictures]:
        """The images that some contexts show, by key."""
        keys = np.unique(np.concatenate([keys_of(ids[ids < 0]) for ids in contexts]))
        return {int(key): self.known[int(key)] for key in keys}

    def arrays(self, images: Mapping[int, Pictures]) -> dict[int, Arrays]:
        """The arrays of images, by their keys. The last :data:`KEPT_BYTES` are remembered."""
        arrays = {}
        for key, pictures in images.items():
            if key in self._prepared:
                self._prepared.move_to_end(key)
            else:
                self._prepared[key] = self._arrays(pictures)
            arrays[key] = self._prepared[key]
        held = sum(array.nbytes for own in self._prepared.values() for array in own.values())
        while len(self._prepared) > len(images) and held > KEPT_BYTES:
            _, dropped = self._prepared.popitem(last=False)
            held -= sum(array.nbytes for array in dropped.values())
        return arrays

    def _arrays(self, pictures: Pictures) -> Arrays:
        opened = [picture.open() for picture in pictures]
        inputs = self.processor(text=[self.mark * len(opened)], images=[opened], return_tensors="pt")
        text = {*self.processor.tokenizer.model_input_names, "mm_token_type_ids", "token_type_ids"}
        return {
            name: value for name, value in inputs.items() if isinstance(value, Tensor) and name not in text
        }


def images_of(prompt: Text, example: Example) -> Pictures:
    """The images of an example that a prompt shows, in its order; all of them, if it is plain text."""
    images = example.images.get("", ())
    if isinstance(prompt, str):
        return images
    parts = [part for turn in prompt if isinstance(turn["content"], list) for part in turn["content"]]
    return tuple(images[part["number"]] for part in parts if isinstance(part, Mapping) and "number" in part)


def in_parts(turn: Message) -> Message:
    """The turn with its content in parts, as templates of processors read it."""
    content = turn["content"]
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn
