"""Texts as token ids: a tokenizer that encodes many of them together, and tells which characters each token
is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.chat import Writing
from prefero.data.examples import Example, Response
from prefero.data.images import ImagePrompts, Pictures, images_of
from prefero.data.render import Rendered, Renderer, Renderers, ending_of
from prefero.data.spans import FUNCTION_WORDS
from prefero.data.trie import common
from prefero.errors import PreferoError

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A text as tokens: ``start`` and ``end`` are the places of each one's first character and of the one
    after its last, neither ever falling; None where the tokenizer does not tell."""

    ids: Ids
    start: Ids | None = None
    end: Ids | None = None


class Encoder:
    """A tokenizer that encodes many texts together.

    ``start`` are the tokens that it puts before a text by itself (BOS, or none), ``finish`` those behind it.
    ``images`` reads prompts that show some. Behind responses that end, end tokens fill a ``canvas`` of so
    many tokens, if there is one. ``apart`` encodes responses without their prompts.
    """

    def __init__(
        self,
        tokenizer: Any,
        images: ImagePrompts | None = None,
        canvas: int | None = None,
        apart: bool = False,
    ) -> None:
        self.tokenizer, self.images, self.canvas, self.apart = tokenizer, images, canvas, apart
        text, bare = _some_text(tokenizer)
        whole = tokenizer(text, add_special_tokens=True)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        self.start = np.asarray(whole[:at], dtype=np.int64)
        self.finish = np.asarray(whole[at + len(bare) :], dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """The texts as tokens, without start and end tokens of the tokenizer's own."""
        if not texts:
            return []
        if not self.tokenizer.is_fast:
            rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
            return [Encoding(np.asarray(ids, dtype=np.int64)) for ids in rows]
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        processor = backend.post_processor
        backend.post_processor = None  # some take white space out of a token's own characters
        try:
            found = backend.encode_batch(texts, add_special_tokens=False)
        finally:
            backend.post_processor = processor
        encodings = []
        for one in found:
            places = np.asarray(one.offsets, dtype=np.int64).reshape(-1, 2)
            encodings.append(Encoding(np.asarray(one.ids, dtype=np.int64), places[:, 0], places[:, 1]))
        return encodings

    def whole(self, rendered: Rendered, images: Pictures, origin: str) -> Encoding:
        """A prompt with a response as tokens, those of images below 0.

        Raises :class:`PreferoError` where the response spells the mark of an image, or its first token cannot
        be told from the prompt.
        """
        text, start = rendered.text, rendered.start
        if images and self.images is not None:
            if self.images.mark in text[start:]:
                raise PreferoError(
                    f"{origin}: a response spells {self.images.mark}, the mark where an image stands. Remove "
                    "it from the row."
                )
            context = self.images.context(text[:start], images, origin)
            at = start if self.apart else max(text.rfind(self.images.mark, 0, start), 0)
            tail, joint = self.encode([text[at:start], text[at:]])
            # the processor may write the first tokens behind an image otherwise
            same = common(context[::-1], tail.ids[::-1])
            head, skipped = len(context) - same, len(tail.ids) - same
            if joint.start is None or joint.end is None:
                raise PreferoError(
                    f"{origin}: the processor's tokenizer does not tell which characters a token is made of, "
                    "which is needed for prompts with images. Use the model's fast tokenizer."
                )
            if not np.array_equal(joint.ids[:skipped], tail.ids[:skipped]):
                raise PreferoError(
                    f"{origin}: the tokens between an image and the response hang on the response, so that "
                    "they cannot be told apart. Let the prompt end with a line end or a mark of a turn."
                )
            places = np.zeros(head, np.int64)
            return Encoding(
                np.concatenate([context[:head], joint.ids[skipped:]]),
                np.concatenate([places, joint.start[skipped:] + at]),
                np.concatenate([places + at, joint.end[skipped:] + at]),
            )
        if not self.apart:
            return self.encode([text])[0]
        before, behind = self.encode([text[:start], text[start:]])
        if before.start is None or before.end is None or behind.start is None or behind.end is None:
            return Encoding(np.concatenate([before.ids, behind.ids]))
        return Encoding(
            np.concatenate([before.ids, behind.ids]),
            np.concatenate([before.start, behind.start + start]),
            np.concatenate([before.end, behind.end + start]),
        )

    def places(self, rendered: Rendered, encoding: Encoding, origin: str) -> list[int]:
        """The place of the response's first token, then the first and the last but one of each range that is
        scored.

        Raises :class:`PreferoError` where the tokenizer does not tell.
        """
        start, end = encoding.start, encoding.end
        if start is None or end is None:
            return self._places_by_prefixes(rendered, encoding.ids, origin)
        places = [int(np.searchsorted(end, rendered.start, "right"))]
        for low, high in rendered.scored:
            inside = np.flatnonzero((low < high) & (end > low) & (start < high))
            places += [int(inside[0]), int(inside[-1]) + 1] if len(inside) else [0, 0]
        return places

    def _places_by_prefixes(self, rendered: Rendered, ids: Ids, origin: str) -> list[int]:
        """The places where the tokenizer does not tell which characters a token is made of."""
        text, unknown = rendered.text, self.tokenizer.unk_token_id
        edges = [rendered.start, *(edge for part in rendered.scored for edge in part)]
        places = []
        for at, (edge, prefix) in enumerate(
            zip(edges, self.encode([text[:edge] for edge in edges]), strict=True)
        ):
            same = common(prefix.ids, ids)
            within = 0 < edge < len(text) and not (text[edge - 1].isspace() or text[edge].isspace())
            if within and same and ids[same - 1] == unknown:
                raise PreferoError(
                    f"{origin}: the tokenizer does not know {text[edge - 1 : edge + 1]!r}, where prompt and "
                    "response meet, and does not tell which characters its unknown token is made of. Use the "
                    "model's fast tokenizer, or begin the response with a space."
                )
            is_stop = at > 0 and at % 2 == 0 and edges[at - 1] < edge
            places.append(same + (is_stop and same < len(prefix.ids)))
        return places

    def begins(self, text: str, starts: bool) -> Ids:
        """The start tokens, where the text ``starts`` with them and does not bring them."""
        first = self.tokenizer.bos_token
        return self.start[:0] if not starts or (first and text.startswith(first)) else self.start

    def first_token(self, origin: str) -> Ids:
        """The token before a response whose prompt has none."""
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        if first is None:
            raise PreferoError(
                f"{origin}, field 'prompt': the prompt is empty, and the tokenizer has neither a start nor "
                "an end token behind which the response's first token could be scored. Give a prompt, or "
                "set tokenizer.bos_token."
            )
        return np.asarray([first], dtype=np.int64)

    def ends(self, tokens: int, origin: str) -> Ids:
        """The end tokens behind a response of so many tokens."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise PreferoError(
                f"{origin}: the response has to end with an end token, and the tokenizer has none. Set "
                "tokenizer.eos_token to the token at which this model stops."
            )
        return np.full(1 if self.canvas is None else max(self.canvas - tokens, 1), end, dtype=np.int64)

    def check_response(self, ids: Ids, scored: NDArray[np.bool_], origin: str) -> None:
        """Raise :class:`PreferoError` for a response without a token that is scored, and for one longer than
        the canvas."""
        if self.canvas is not None and len(ids) > self.canvas:
            raise PreferoError(
                f"{origin}: a response has {len(ids)} tokens, its end token among them, but the canvas that "
                f"responses are put on has {self.canvas}. Make it larger, or remove the row."
            )
        if not scored.any():
            raise PreferoError(
                f"{origin}: a response has no token that the assistant says, so that nothing can be scored. "
                "Remove the row."
            )

    def check_sees(self, example: Example) -> None:
        """Raise :class:`PreferoError` for an example with images where the model sees none."""
        if any(example.images.values()) and self.images is None:
            raise PreferoError(
                f"{example.origin}: the prompt shows {len(example.images[''])} images, which this model does "
                "not see. Name a vision-language model, or rename the column of images."
            )

    def check_images(self, ids: Ids, origin: str) -> None:
        """Raise :class:`PreferoError` for text that spells the token of an image where none stands."""
        if self.images is not None and (ids == self.images.placeholder).any():
            raise PreferoError(
                f"{origin}: the text spells {self.tokenizer.convert_ids_to_tokens(self.images.placeholder)}, "
                "where an image stands, and the row has no image for it. Remove it from the row."
            )

    @cached_property
    def function_words(self) -> frozenset[int]:
        """The tokens that are a function word by themselves, with and without a space before it."""
        words = [
            before + form for word in FUNCTION_WORDS for form in (word, word.title()) for before in ("", " ")
        ]
        return frozenset(int(found.ids[0]) for found in self.encode(words) if len(found.ids) == 1)


def _some_text(tokenizer: Any) -> tuple[str, list[int]]:
    """A short text that the tokenizer does not drop, with its tokens, none of them special: a token of the
    vocabulary where that does not have the letter "a". An empty text where there is none."""
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}

    def texts() -> Iterator[str]:
        yield "a"
        for token in sorted(tokenizer.get_vocab().values()):
            yield tokenizer.decode([token])

    for text in texts():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids and special.isdisjoint(ids):
            return text, list(ids)
    return "", []


def check_text(text: str, origin: str) -> None:
    """Raise :class:`PreferoError` for text with half a character, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PreferoError(
            f"{origin}: the text has half a character, {text[error.start]!r}, behind "
            f"{text[max(error.start - 20, 0) : error.start]!r}: half of an emoji, say, that was cut through. "
            "Remove it from the row."
        ) from error


def prompt_ids(
    examples: Sequence[Example],
    tokenizer: Any,
    images: ImagePrompts | None = None,
    writing: Writing | None = None,
    apart: bool = False,
) -> list[Ids]:
    """The contexts from which a model generates, each of at least one token: those in which it is trained on
    the examples' responses, as far as these share them, and of an example without responses its prompt.

    Arguments are as for :func:`~prefero.data.tokenize.tokenize`. Raises :class:`PreferoError` as that does.
    """
    encoder = Encoder(tokenizer, images, apart=apart)
    renderers = Renderers(tokenizer, images, writing, examples)
    read = []
    for example in examples:
        encoder.check_sees(example)
        own = tuple(response for response in example.responses if response.prompt is None)
        renderer = renderers.of(replace(example, responses=own))
        written = _written(example, own, renderer)
        shown, encodings = images_of(example.prompt, example), []
        for one in written:
            check_text(one.text, example.origin)
            encodings.append(encoder.whole(one, shown, example.origin))
        first = encodings[0].ids
        shared = min(
            min(encoder.places(one, encoding, example.origin)[0], common(encoding.ids, first))
            for one, encoding in zip(written, encodings, strict=True)
        )
        encoder.check_images(first[:shared], example.origin)
        ids = np.concatenate([encoder.begins(written[0].text, renderer.starts), first[:shared]])
        read.append(ids if len(ids) else encoder.first_token(example.origin))
    return read


def _written(example: Example, responses: Sequence[Response], renderer: Renderer) -> list[Rendered]:
    """The example's prompt with each of the responses to it; alone, where there is none."""
    ending = ending_of(example.prompt, responses)
    if responses:
        return [renderer.response(example.prompt, response, example, ending) for response in responses]
    text = renderer.prompt(example.prompt, example, ending)
    return [Rendered(text, len(text), (), end=False)]
