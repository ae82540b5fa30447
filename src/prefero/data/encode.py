"""Texts as token ids, each text once and all of them at a time, and cells cut to a maximal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.examples import Text
from prefero.data.images import ImagePrompts, Pictures
from prefero.data.render import Rendered
from prefero.data.spans import FUNCTION_WORDS
from prefero.data.trie import Cell
from prefero.errors import PreferoError

Ids = NDArray[np.int64]


class Encoder:
    """A tokenizer that remembers the texts it has encoded.

    ``start`` are the tokens that it puts before a text by itself (BOS, or none), ``finish`` those behind it.
    ``images`` reads prompts that show some. End tokens behind responses fill a ``canvas`` of so many tokens.
    """

    def __init__(self, tokenizer: Any, images: ImagePrompts | None = None, canvas: int | None = None) -> None:
        self.tokenizer, self.images, self.canvas = tokenizer, images, canvas
        self.known: dict[str, Ids] = {}
        self.places: dict[str, tuple[Ids, Ids]] = {}
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a", add_special_tokens=True)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        self.start = np.asarray(whole[:at], dtype=np.int64)
        self.finish = np.asarray(whole[at + len(bare) :], dtype=np.int64)

    def learn(self, texts: Iterable[str]) -> None:
        """Encode ``texts`` together, which is much faster than one by one."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if self.tokenizer.is_fast:
            backend = self.tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            # Keeps no offsets, which nothing here reads: a quarter faster than the tokenizer's own call.
            encoded = [encoding.ids for encoding in backend.encode_batch_fast(new, add_special_tokens=False)]
        else:
            encoded = self.tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(new, encoded, strict=True):
            self.known[text] = np.asarray(ids, dtype=np.int64)

    def offsets(self, text: str) -> tuple[Ids, Ids]:
        """The first characters of a text's tokens, and the ends of them."""
        if not self.tokenizer.is_fast:
            raise PreferoError(
                f"{type(self.tokenizer).__name__} does not tell which characters a token is made of, and the "
                "data annotate parts of responses. Use the model's fast tokenizer."
            )
        if text not in self.places:
            pairs = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets
            starts, ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
            self.places[text] = starts, ends
        return self.places[text]

    @cached_property
    def function_words(self) -> frozenset[int]:
        """The tokens that are a function word by themselves, with and without a space before it."""
        words = [
            before + form for word in FUNCTION_WORDS for form in (word, word.title()) for before in ("", " ")
        ]
        self.learn(words)
        return frozenset(int(self.known[word][0]) for word in words if len(self.known[word]) == 1)

    def __getitem__(self, text: str) -> Ids:
        if text not in self.known:
            self.learn([text])
        return self.known[text]

    def context(self, text: str, starts: bool, origin: str, shown: Pictures = ()) -> Ids:
        """The ids of a prompt, at least one, after the start tokens if it ``starts`` without them."""
        known = self.images.context(text, shown, origin) if shown and self.images else self[text]
        ids = np.concatenate([self.start, known]) if starts and len(self.start) else known
        if len(ids):
            return ids
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        if first is None:
            raise PreferoError(
                f"{origin}, field 'prompt': the prompt is empty, and the tokenizer has neither a start nor "
                "an end token behind which the response's first token could be scored. Give a prompt, or "
                "set tokenizer.bos_token."
            )
        return np.asarray([first], dtype=np.int64)

    def response(self, rendered: Rendered, origin: str) -> tuple[Ids, NDArray[np.bool_] | None]:
        """The ids of a response, its end token included, and which of them are scored (None: all)."""
        parts = [self[segment.text] for segment in rendered.segments]
        marks = [segment.scored for segment in rendered.segments]
        if rendered.end:
            end = self.tokenizer.eos_token_id
            if end is None:
                raise PreferoError(
                    f"{origin}: the response has to end with an end token, and the tokenizer has none. Set "
                    "tokenizer.eos_token to the token at which this model stops."
                )
            rest = 1 if self.canvas is None else self.canvas - sum(map(len, parts))
            parts.append(np.full(max(rest, 1), end, dtype=np.int64))
            marks.append(True)
        ids = np.concatenate(parts)
        if self.canvas is not None and len(ids) > self.canvas:
            raise PreferoError(
                f"{origin}: a response has {len(ids)} tokens, its end token among them, but the canvas that "
                f"responses are put on has {self.canvas}. Make it larger, or remove the row."
            )
        if not len(ids):
            raise PreferoError(
                f"{origin}: a response has no tokens, so that nothing can be scored. Remove the row."
            )
        if all(marks):
            return ids, None
        return ids, np.repeat(marks, [len(part) for part in parts])


@dataclass(slots=True)
class Truncation:
    """Origins of the prompts and responses that were shortened, and the number of tokens dropped."""

    prompts: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    tokens: int = 0

    def notes(self, max_length: int | None) -> list[str]:
        """Messages to the user, with the remedy."""
        notes = []
        if self.prompts:
            notes.append(
                f"prompts that lost their oldest turns or tokens to fit max_length = {max_length}: "
                f"{len(self.prompts)}, first {self.prompts[0]}. Raise max_length to keep them whole."
            )
        if self.responses:
            notes.append(
                f"responses longer than max_length = {max_length} by themselves, which lost their ends, and "
                f"their prompts all but a token: {len(self.responses)}, first {self.responses[0]}. Raise "
                "max_length, or remove these rows."
            )
        return notes


def fit(
    cells: Sequence[Cell],
    max_length: int,
    prompts: Sequence[Text],
    encode: Callable[[int, Text], Ids],
    start: Ids,
    dropped: Truncation,
    origin: str,
) -> tuple[Cell, ...]:
    """``cells`` in at most ``max_length`` tokens each; lost tokens are added to ``dropped``.

    ``prompts`` are those of the cells' contexts, and ``encode(cell, prompt)`` makes such a context of another
    prompt. Cells that share a prompt hold the same context array. ``start`` stays at the beginning of a
    context whose oldest tokens are dropped. Raises :class:`PreferoError` where images would be dropped.
    """
    cells = list(cells)
    members: dict[int, list[int]] = {}
    for at, cell in enumerate(cells):
        if (beyond := len(cell.response) - (max_length - 1)) > 0:
            dropped.responses.append(origin)
            dropped.tokens += beyond
            cells[at] = cell.cut(max_length - 1)
        members.setdefault(id(cell.context), []).append(at)
    lost = 0
    for group in members.values():
        context = cells[group[0]].context
        room = max_length - max(len(cells[at].response) for at in group)
        if len(context) <= room:
            continue
        shorter = _shorten(prompts[group[0]], room, partial(encode, group[0]))
        shorter = context if shorter is None else shorter
        if len(shorter) > room:
            shown = shorter
            kept = len(start) if room > len(start) and np.array_equal(shown[: len(start)], start) else 0
            shorter = np.concatenate([shown[:kept], shown[len(shown) - (room - kept) :]])
            if (shown < 0).sum() > (shorter < 0).sum():
                raise PreferoError(
                    f"{origin}: the images do not fit: prompt and response have "
                    f"{len(shown) + max_length - room} tokens, {(shown < 0).sum()} of them of images, "
                    f"which are not cut, and max_length is {max_length}. Raise max_length, make the images "
                    "smaller, or remove the row"
                )
        lost += len(context) - len(shorter)
        for at in group:
            cells[at] = replace(cells[at], context=shorter)
    if lost:
        dropped.prompts.append(origin)
    dropped.tokens += lost
    return tuple(cells)


def _shorten(prompt: Text, room: int, encode: Callable[[Text], Ids]) -> Ids | None:
    """The conversation without as few of its oldest turns as make it fit, else the shortest; None for
    text."""
    choices = shorter_prompts(prompt)
    if not choices:
        return None
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(encode(choices[middle])) <= room else (middle + 1, high)
    return encode(choices[low])


def shorter_prompts(prompt: Text) -> list[Text]:
    """The conversation without its oldest turns, the longest first. The system turn and the user's last
    stay."""
    if isinstance(prompt, str):
        return []
    system = prompt[:1] if prompt and prompt[0]["role"] == "system" else ()
    turns = prompt[len(system) :]
    starts = [at for at, turn in enumerate(turns) if turn["role"] == "user" and at > 0]
    return [(*system, *turns[at:]) for at in starts]
