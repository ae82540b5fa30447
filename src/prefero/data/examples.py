"""What preference data is: a prompt, the responses to it, and what somebody thought of them.

Pairs, unpaired labels, ranked lists, triples and trees are readings of an :class:`Example`, not other types.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from prefero.data.pictures import Picture

Message = Mapping[str, Any]
"""One chat turn, as chat templates take it: ``role``, ``content``, perhaps ``tool_calls`` …"""

Text = str | tuple[Message, ...]
"""Plain text, or a conversation that a chat template renders."""

Content = Text | Picture
"""What a response may be: an image is one for models that draw."""


def says_something(content: Content) -> bool:
    """Whether text is not blank; of a conversation, whether the assistant writes anything or calls a tool."""
    if isinstance(content, Picture):
        return True
    if isinstance(content, str):
        return bool(content.strip())
    return any(
        turn.get("tool_calls")
        or (says_something(turn["content"]) if isinstance(turn["content"], str) else turn["content"])
        for turn in content
        if turn["role"] == "assistant"
    )


def spoken(content: Content) -> tuple[str, ...]:
    """What the assistant says: text as it is; of a conversation, the text of each of its turns; no text of an
    image."""
    if isinstance(content, Picture):
        return ()
    if isinstance(content, str):
        return (content,)
    return tuple(_text_of(turn["content"]) for turn in content if turn["role"] == "assistant")


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a response: a reasoning step, segment, turn, key phrase or difference.

    ``start`` and ``end`` are character offsets into what the response says (:func:`spoken`), end exclusive.
    ``index`` tells which step or segment it is, from 1. ``scores`` are numbers that people or judges gave it:
    ``score``, ``weight``, ``image_weight``.
    """

    start: int
    end: int
    kind: str
    index: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One response, with the annotations that belong to it alone.

    ``role`` is ``"chosen"``, ``"rejected"``, ``"gold"``, … or ``None`` for an unnamed candidate of a list.
    ``prompt`` is set only where this response answers another prompt than the example's.
    ``ended`` is False for a response that was cut off: it gets no end token.
    """

    content: Content
    role: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    prompt: Text | None = None
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its responses, and the annotations that belong to all of them.

    ``columns`` are named as in :data:`prefero.data.schema.SCHEMA`; ``tools`` are the JSON schemas that a chat
    template renders, ``template_options`` what else it is given; ``origin`` is where the row stands
    (``"train.jsonl, row 12"``), for error messages. ``prompts`` are other prompts to the same responses, by
    the views of :data:`prefero.data.schema.OTHER_PROMPTS`. ``images`` are what prompts show, by view, ``""``
    for the prompt itself; a part of a message ``{"type": "image", "number": 0}`` is where the first stands.
    """

    prompt: Text
    responses: tuple[Response, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    origin: str = ""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, Text] = field(default_factory=dict)
    images: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str | None, ...]:
        return tuple(response.role for response in self.responses)


@dataclass(frozen=True, slots=True)
class Examples(Sequence[Example]):
    """Examples in their order, and what is known of where they came from.

    ``skipped`` has one message for every row that could not be read. ``dropped`` counts, by reason, the
    examples that a reading left out (``"ties"``: equally good sides where one has to be the better).
    """

    items: Sequence[Example]
    name: str = ""
    format: str = ""
    skipped: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def hold_out(self, share: float, seed: int = 0) -> tuple[Examples, Examples]:
        """Two parts: the larger to train on, and ``share`` of the examples, drawn with ``seed``, held out.

        Examples with the same prompt, images included, stay together, so that no prompt is on both sides;
        both keep their order.
        """
        by_prompt: dict[str, list[int]] = {}
        for position, example in enumerate(self.items):
            seen = [image.identity for image in example.images.get("", ())]
            by_prompt.setdefault(repr((example.prompt, seen)), []).append(position)
        groups = list(by_prompt.values())
        random.Random(seed).shuffle(groups)
        wanted, held = round(share * len(self.items)), set[int]()
        for group in groups:
            if len(held) >= wanted:
                break
            held.update(group)
        kept = [example for position, example in enumerate(self.items) if position not in held]
        return replace(self, items=kept), replace(self, items=[self.items[i] for i in sorted(held)])
