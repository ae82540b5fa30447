"""Texts to token ids, each text once and all of them at a time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.differences import FUNCTION_WORDS
from prefero.data.image_prompts import ImagePrompts, Pictures
from prefero.data.render import Rendered
from prefero.errors import PreferoError

Ids = NDArray[np.int64]


class Encoder:
    """A tokenizer that remembers; ``start`` is what it puts before a text by itself (BOS, or
    nothing), ``finish`` what behind it.
    ``images`` reads prompts that show some. Behind responses that end, end tokens fill a ``canvas`` of so
    many tokens, if there is one."""

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
        self.known.update(zip(new, self._encode(new), strict=True))

    def _encode(self, texts: list[str]) -> list[Ids]:
        if self.tokenizer.is_fast:
            backend = self.tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            # Keeps no offsets, which nothing here reads: a quarter faster than the tokenizer's own call.
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
            return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]

    def offsets(self, text: str) -> tuple[Ids, Ids]:
        """Where each token of a text begins and ends, in characters."""
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
        """The ids of a prompt, one at least; behind the start tokens where the text ``starts`` without.
        ``shown`` are its images.
        """
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
