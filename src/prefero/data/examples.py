"""Preference data in memory: a prompt, the responses to it, and what people or judges thought of them.

Pairs, unpaired labels, ranked lists, triples and trees are readings of an :class:`Example`, not other types.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from prefero.data.pictures import Picture

Message = Mapping[str, Any]
"""One chat turn, as chat templates take it: ``role``, ``content``, perhaps ``tool_calls`` …"""

Text = str | tuple[Message, ...]
"""Plain text, or a conversation that a chat template renders."""

Content = Text | Picture
"""A response is text or a conversation; for models that draw, an image."""


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
    """The text of each of the assistant's turns: one of plain text, none of an image."""
    if isinstance(content, Picture):
        return ()
    if isinstance(content, str):
        return (content,)
    said = (turn["content"] for turn in content if turn["role"] == "assistant")
    return tuple(
        "".join(part.get("text", "") for part in c) if isinstance(c, list) else c or "" for c in said
    )


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a response: a reasoning step, segment, turn, key phrase or difference.

    ``start`` and ``end`` are character offsets into what the response says (:func:`spoken`), end exclusive.
    ``index`` tells which step or segment it is, from 1. ``scores`` are ``score``, ``weight``,
    ``image_weight``.
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
    ``writer`` is the name of the model or person that wrote it, empty where the data do not say.
    """

    content: Content
    role: str | None = None
    columns: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    prompt: Text | None = None
    ended: bool = True
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its responses, and the annotations that belong to all of them.

    ``columns`` are named as in :data:`prefero.data.schema.SCHEMA`; ``tools`` are the JSON schemas that a chat
    template renders, ``template_options`` its other arguments; ``read`` are the fields of the row that are
    read, ``unread`` those that nothing is made of, ``notes`` what else is to be said of how it is read.
    ``origin`` is where the row stands (``"train.jsonl, row 12"``), for error messages, and ``joined`` where
    further rows stand that are part of the example.

    ``prompts`` are other prompts to the same responses, by the views of
    :data:`prefero.data.schema.OTHER_PROMPTS`. ``images`` are what prompts show, by view, ``""`` for the
    prompt itself; a part of a message ``{"type": "image", "number": 0}`` is where the first stands.

    ``votes`` are single preferences for the chosen response, by annotator: 1, 0, or 0.5 for a tie.
    ``chosen_second`` tells that the annotators saw the chosen response as the second one.
    """

    prompt: Text
    responses: tuple[Response, ...]
    columns: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    origin: str = ""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, Text] = field(default_factory=dict)
    images: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    votes: Mapping[str, float] = field(default_factory=dict)
    chosen_second: bool = False
    read: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str | None, ...]:
        return tuple(response.role for response in self.responses)

    @property
    def prompt_identity(self) -> str:
        """A text that is the same for the same prompt, its images included."""
        return repr((self.prompt, [image.identity for image in self.images.get("", ())]))


def leaked(training: Sequence[Example], held_out: Sequence[Example]) -> tuple[int, int]:
    """The numbers of held-out examples whose prompt is trained on too, and of those whose responses are as
    well."""
    trained: dict[str, set[frozenset[str]]] = {}
    for example in training:
        trained.setdefault(example.prompt_identity, set()).add(_said(example))
    known = [example for example in held_out if example.prompt_identity in trained]
    return len(known), sum(_said(example) in trained[example.prompt_identity] for example in known)


def _said(example: Example) -> frozenset[str]:
    return frozenset(
        repr(r.content.identity if isinstance(r.content, Picture) else r.content) for r in example.responses
    )


@dataclass(frozen=True, slots=True)
class Examples(Sequence[Example]):
    """Examples in their order, with the source that they were read from.

    ``skipped`` has one message for every row that could not be read. ``dropped`` counts, by reason, the
    examples that were left out (``"ties"``: equally good sides where one has to be the better).
    ``skips_bad_rows`` tells that a row is left out, too, if it cannot be tokenised.
    """

    items: Sequence[Example]
    name: str = ""
    format: str = ""
    skipped: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    skips_bad_rows: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def hold_out(self, share: float, seed: int = 0) -> tuple[Examples, Examples]:
        """Two parts in order: the larger to train on, and ``share`` of the examples, drawn with ``seed``,
        held out. Examples with the same prompt, images included, stay together."""
        by_prompt: dict[str, list[int]] = {}
        for position, example in enumerate(self.items):
            by_prompt.setdefault(example.prompt_identity, []).append(position)
        groups = list(by_prompt.values())
        random.Random(seed).shuffle(groups)
        wanted, held = round(share * len(self.items)), set[int]()
        for group in groups:
            if len(held) >= wanted:
                break
            held.update(group)
        kept = [example for position, example in enumerate(self.items) if position not in held]
        return replace(self, items=kept), replace(self, items=[self.items[i] for i in sorted(held)])
